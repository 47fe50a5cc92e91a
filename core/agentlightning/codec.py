"""Records, and whatever an agent puts into them, as MessagePack and back.

What an agent's input, output or tools hold may be anything. What has a plain form is kept in it: arrays of token ids
and log-probabilities packed, integers of any size, mappings, pydantic models. The rest is kept as its ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, TypeVar

import msgspec
import numpy as np

T = TypeVar("T")

_ARRAY_CODES = {np.dtype(np.int32): 1, np.dtype(np.float32): 2, np.dtype(np.bool_): 3}
_ARRAY_TYPES = {code: dtype for dtype, code in _ARRAY_CODES.items()}
_INTEGER_CODE = 4
_MOST_BITS = 10_000
"""Python writes an integer of more than 4,300 digits in no text, and so in no export."""
_DEEPEST = 100


def encode(value: Any) -> bytes:
    """A record, or anything made of plain values and records, as MessagePack. It encodes every value.

    What has no plain form, and what is nested deeper than 100 where the whole nests too deep, becomes text.
    """
    try:
        return _encoder.encode(value)
    except Exception:  # noqa: BLE001 - an integer beyond 64 bits, half a surrogate pair, a list that changes meanwhile …
        return _encoder.encode(_plain(value, []))


def decode(data: bytes, kind: type[T] | Any) -> T:
    """The inverse of `encode`. Raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind, ext_hook=_unpack, dec_hook=_as_it_is)
    result: T = decoder.decode(data)
    return result


def readable(value: Any) -> Any:
    """The value, or its ``repr`` where it could be encoded and not decoded again (a mapping with objects for keys)."""
    try:
        decode(encode(value), Any)
    except msgspec.DecodeError:
        return _text(value)
    return value


def _pack(value: Any) -> Any:
    """A value that MessagePack does not know, as one that it does."""
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype in _ARRAY_CODES:
        return msgspec.msgpack.Ext(_ARRAY_CODES[value.dtype], value.tobytes())
    try:
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, Mapping):
            return dict(value)
        if hasattr(type(value), "model_dump"):
            return value.model_dump(mode="json")
    except Exception:  # noqa: BLE001 - a stranger's class may raise anything
        return _text(value)
    return _text(value)


def _text(value: Any) -> str:
    try:
        return _writable(repr(value))
    except Exception:  # noqa: BLE001 - a stranger's __repr__ may raise anything
        return f"<{type(value).__name__}>"


def _writable(text: str) -> str:
    return str.encode(text, errors="replace").decode()


def _plain(value: Any, around: list[int]) -> Any:
    """A copy that MessagePack can hold, item by item. ``around`` are the ids of what the value lies in."""
    if isinstance(value, str):
        return _writable(value)
    if isinstance(value, int):
        number = int.__int__(value) if not isinstance(value, bool) else value
        return number if -(2**63) <= number < 2**64 else _integer(number)
    if len(around) > _DEEPEST or id(value) in around:
        return _text(value)
    inside = [*around, id(value)]
    try:
        if isinstance(value, msgspec.Struct):
            fields = {name: _plain(getattr(value, name), inside) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        if isinstance(value, Mapping):
            return {_key(key, inside): _plain(item, inside) for key, item in list(value.items())}
        if isinstance(value, list | tuple | Set):
            return tuple(_plain(item, inside) for item in list(value))
        if hasattr(type(value), "model_dump"):
            return _plain(value.model_dump(mode="json"), inside)
        _encoder.encode(value)
    except Exception:  # noqa: BLE001 - a stranger's class may raise anything
        return _text(value)
    return value


def _key(value: Any, around: list[int]) -> Any:
    key = _plain(value, around)
    return _text(value) if isinstance(key, msgspec.msgpack.Ext | dict) else key


def _integer(number: int) -> msgspec.msgpack.Ext | str:
    if number.bit_length() > _MOST_BITS:
        return hex(number)
    size = number.bit_length() // 8 + 1
    return msgspec.msgpack.Ext(_INTEGER_CODE, number.to_bytes(size, "big", signed=True))


def _unpack(code: int, data: memoryview) -> Any:
    if code == _INTEGER_CODE:
        return int.from_bytes(data, "big", signed=True)
    if code in _ARRAY_TYPES:
        return np.frombuffer(data, _ARRAY_TYPES[code])
    return bytes(data)


def _as_it_is(kind: type, value: Any) -> Any:
    return value


_encoder = msgspec.msgpack.Encoder(enc_hook=_pack)
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
