"""OTLP bodies and values: protobuf or JSON, compressed or not → the official messages; values ↔ plain Python."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, NamedTuple, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from agentlightning_otel import salvage
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.text import sendable

M = TypeVar("M", bound=Message)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
LARGEST = 64 * 1024**2
"""Bytes of a body, unpacked."""
_LONGEST_INTEGER = 100
"""Digits. OTLP's integers have 64 bits."""


class Decoded(NamedTuple):
    """A request; ``dropped`` says of each thing in it that could not be decoded which it was, and why not."""

    message: Any
    dropped: list[str]


def unpack(body: bytes, encoding: str, most: int) -> bytes:
    """A body without its compression. Raises `PayloadError`, with status 413 beyond ``most`` bytes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise PayloadError(f"content encoding {encoding!r}: expected gzip, deflate or none", 415)
    unpacked = bytearray()
    rest = body
    while rest or not unpacked:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            unpacked += unpacker.decompress(rest, most - len(unpacked) + 1)
        except zlib.error as error:
            raise PayloadError(f"the body is not {encoding}, as its content encoding says: {error}") from error
        if len(unpacked) > most:
            raise PayloadError(f"the body is larger than {most // 1024**2} MiB when unpacked", 413)
        if not unpacker.eof:
            raise PayloadError(f"the {encoding} body is cut off")
        rest = unpacker.unused_data.lstrip(b"\0")
        if not unpacked and not rest:
            break
    return bytes(unpacked)


def decode(body: bytes, content_type: str, kind: type[M], field: str) -> Decoded:
    """A request's unpacked body as a message of ``kind``, whose one field is ``field``.

    What in it cannot be decoded is left out, down to single attributes. Raises `PayloadError` that says what is wrong
    where nothing can.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media in (PROTOBUF, "application/protobuf", ""):
        return _from_protobuf(body, kind)
    if media == JSON:
        return _from_json(body, kind, field)
    raise PayloadError(f"content type {media!r}: expected {PROTOBUF} or {JSON}", 415)


def encode(message: Message, content_type: str) -> bytes:
    """An answer in the form in which it was asked for."""
    if content_type.partition(";")[0].strip().lower() == JSON:
        return json.dumps(json_format.MessageToDict(message)).encode()
    body: bytes = message.SerializeToString()
    return body


def to_python(value: AnyValue) -> Any:
    """The plain value; bytes become base64."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [to_python(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, Any]:
    """A message's attributes by name."""
    return {pair.key: to_python(pair.value) for pair in pairs}


def to_value(value: Any) -> AnyValue:
    """The inverse of `to_python`; what OTLP has no place for becomes text."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list | tuple):
        return AnyValue(array_value=ArrayValue(values=[to_value(item) for item in value]))
    if isinstance(value, dict):
        return AnyValue(kvlist_value=KeyValueList(values=pairs_of(value)))
    return AnyValue(string_value=sendable(str(value)))


def pairs_of(attributes: dict[str, Any]) -> list[KeyValue]:
    """Attributes as a message holds them; those without a value are left out."""
    return [
        KeyValue(key=sendable(str(name)), value=to_value(value))
        for name, value in attributes.items()
        if value is not None
    ]


def _from_protobuf(body: bytes, kind: type[M]) -> Decoded:
    message: M = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        dropped: list[str] = []
        saved = salvage.from_protobuf(body, kind, dropped)
        if saved is not None:
            return Decoded(saved, dropped)
        hint = f"; it looks like JSON: send it as {JSON}" if body.lstrip()[:1] == b"{" else ""
        raise PayloadError(f"the body is no {kind.__name__} in protobuf: {error}{hint}") from error
    return Decoded(message, [])


def _from_json(body: bytes, kind: type[M], field: str) -> Decoded:
    content = _loaded(body)
    if not isinstance(content, dict):
        raise PayloadError(f"the body is a JSON {type(content).__name__}: expected an object with {field}")
    if content and field not in content and _snake(field) not in content:
        raise PayloadError(f"the body has no {field}; its keys: {', '.join(content)}")
    dropped: list[str] = []
    return Decoded(salvage.from_json(content, kind, dropped), dropped)


def _loaded(body: bytes) -> Any:
    """The JSON of a body. What is no UTF-8 in it stays as lone surrogates, a number too long for 64 bits as text."""
    try:
        return json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error
    except ValueError:
        pass
    try:
        text = body.decode(json.detect_encoding(body), "surrogateescape")
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _LONGEST_INTEGER else digits)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
