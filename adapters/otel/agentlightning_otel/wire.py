"""OTLP bodies and values: protobuf or JSON, compressed or not → the official messages; values ↔ plain Python."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from agentlightning_otel.errors import PayloadError

M = TypeVar("M", bound=Message)

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
LARGEST = 64 * 1024**2
"""Bytes of a body, unpacked."""

# OTLP/JSON writes these in hexadecimal, where the JSON of protobuf has base64.
_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8, "trace_id": 16, "span_id": 8, "parent_span_id": 8}


def decode(body: bytes, content_type: str, encoding: str, kind: type[M], field: str) -> M:
    """A request's body as a message of ``kind``, whose one field is ``field``.

    Raises `PayloadError` that says what is wrong with it.
    """
    body = _unpacked(body, encoding.strip().lower())
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


def sendable(text: str) -> str:
    """The text without what UTF-8 has no place for."""
    return text.encode(errors="replace").decode()


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise PayloadError(f"content encoding {encoding!r}: expected gzip, deflate or none", 415)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        unpacked = unpacker.decompress(body, LARGEST)
    except zlib.error as error:
        raise PayloadError(f"the body is not {encoding}, as its content encoding says: {error}") from error
    if unpacker.unconsumed_tail:
        raise PayloadError(f"the body is larger than {LARGEST // 1024**2} MiB when unpacked", 413)
    if not unpacker.eof:
        raise PayloadError(f"the {encoding} body is cut off")
    return unpacked


def _from_protobuf(body: bytes, kind: type[M]) -> M:
    message: M = kind()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        hint = f"; it looks like JSON: send it as {JSON}" if body.lstrip()[:1] == b"{" else ""
        raise PayloadError(f"the body is no {kind.__name__} in protobuf: {error}{hint}") from error
    return message


def _from_json(body: bytes, kind: type[M], field: str) -> M:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise PayloadError(f"the body is a JSON {type(content).__name__}: expected an object with {field}")
    if content and field not in content and _snake(field) not in content:
        raise PayloadError(f"the body has no {field}; its keys: {', '.join(content)}")
    try:
        message: M = json_format.ParseDict(_with_binary_ids(content, ""), kind(), ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, ValueError, TypeError) as error:
        raise PayloadError(f"the body is no {kind.__name__} in OTLP/JSON: {error}") from error
    return message


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _with_binary_ids(value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_with_binary_ids(item, f"{path}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, item in value.items():
        below = f"{path}.{name}" if path else name
        is_id = name in _IDS and isinstance(item, str)
        changed[name] = _base64(item, _IDS[name], below) if is_id else _with_binary_ids(item, below)
    return changed


def _base64(text: str, length: int, path: str) -> str:
    try:
        binary = binascii.unhexlify(text)
    except (binascii.Error, ValueError) as error:
        raise PayloadError(f"{path}: {text!r} is not hexadecimal") from error
    if len(binary) not in (0, length):
        raise PayloadError(f"{path}: {text!r} has {len(text)} digits: expected {2 * length}")
    return base64.b64encode(binary).decode()
