"""Bodies of OTLP requests, protobuf or JSON, compressed or not → the official messages.

One bad attribute costs itself, not its batch: JSON that cannot be read whole is read field by field. Protobuf has one
thing that can be wrong inside a well-formed message: text that is not UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import zlib
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from agentlightning_otel.errors import PayloadError
from agentlightning_otel.values import shortened, utf8

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MAX_BODY_BYTES = 64 * 1024**2
"""Of a body, unpacked."""
_MAX_INTEGER_DIGITS = 100
"""OTLP's integers have 64 bits."""
_FILES = (common_pb2, resource_pb2, trace_pb2, logs_pb2, trace_service_pb2, logs_service_pb2)
_ATTRIBUTE = common_pb2.KeyValue.DESCRIPTOR.full_name
_ENTRIES = (trace_pb2.Span.DESCRIPTOR.full_name, logs_pb2.LogRecord.DESCRIPTOR.full_name)
"""What a request is made of: inside one of these a field can be left out, above it the request is malformed."""
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
"""OTLP/JSON writes these in hexadecimal, where the JSON of protobuf has base64."""
_WITH_IDS = (
    *("resourceSpans", "scopeSpans", "spans", "links", "resourceLogs", "scopeLogs", "logRecords"),
    *("resource_spans", "scope_spans", "resource_logs", "scope_logs", "log_records"),
)
"""Fields that hold ids, or lead to them."""
_LISTS = ("resource_spans", "scope_spans", "spans", "resource_logs", "scope_logs", "log_records")
"""Fields that are read member by member."""
_UNREADABLE = (
    *(json_format.ParseError, ValueError, TypeError, ArithmeticError, AttributeError, RecursionError, SystemError),
)
"""What `json_format` raises, by what is wrong; the last where a name has a lone surrogate."""


class Decoded(NamedTuple):
    """A request; ``dropped`` names each thing in it that could not be decoded, and why."""

    message: Any
    dropped: list[str]


def unpack(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its compression. Raises `PayloadError`, with status 413 beyond ``limit`` bytes."""
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
            unpacked += unpacker.decompress(rest, limit - len(unpacked) + 1)
        except zlib.error as error:
            raise PayloadError(f"the body is not {encoding}, as its content encoding says: {error}") from error
        if len(unpacked) > limit:
            raise PayloadError(f"the body is larger than {limit // 1024**2} MiB when unpacked", 413)
        if not unpacker.eof:
            raise PayloadError(f"the {encoding} body is cut off")
        rest = unpacker.unused_data.lstrip(b"\0")
        if not unpacked and not rest:
            break
    return bytes(unpacked)


def media_type(content_type: str) -> str:
    """The type alone, without parameters."""
    return content_type.partition(";")[0].strip().lower()


def decode(body: bytes, content_type: str, kind: type[Message]) -> Decoded:
    """An unpacked body as a message of ``kind``; what in it cannot be decoded is left out, down to single attributes.

    Raises `PayloadError` that says what is wrong where nothing can be decoded.
    """
    media, dropped = media_type(content_type), list[str]()
    if media in (PROTOBUF, "application/protobuf", ""):
        return Decoded(_from_protobuf(body, kind, dropped), dropped)
    if media == JSON:
        return Decoded(_from_json(body, kind, dropped), dropped)
    raise PayloadError(f"content type {media!r}: expected {PROTOBUF} or {JSON}", 415)


def encode(message: Message, media: str) -> bytes:
    """An answer in the form in which it was asked for."""
    if media == JSON:
        return json.dumps(json_format.MessageToDict(message)).encode()
    body: bytes = message.SerializeToString()
    return body


def _from_json(body: bytes, kind: type[Message], dropped: list[str]) -> Message:
    content = _load_json(body)
    (field,) = kind.DESCRIPTOR.fields
    if not isinstance(content, dict):
        raise PayloadError(f"the body is a JSON {type(content).__name__}: expected an object with {field.json_name}")
    if content and field.json_name not in content and field.name not in content:
        raise PayloadError(f"the body has no {field.json_name}; its keys: {', '.join(content)}")
    message = kind()
    _merge(message, _with_binary_ids(content, "", dropped), "", False, dropped)
    return message


def _load_json(body: bytes) -> Any:
    """The JSON of a body. What is not UTF-8 in it stays as lone surrogates, a number too long for 64 bits as text."""
    try:
        return json.loads(body)
    except (json.JSONDecodeError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error
    except ValueError:
        pass
    try:
        text = body.decode(json.detect_encoding(body), "surrogateescape")
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"the body is not JSON: {error}") from error


def _with_binary_ids(value: Any, path: str, dropped: list[str]) -> Any:
    if isinstance(value, list):
        return [_with_binary_ids(item, f"{path}[{index}]", dropped) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, item in value.items():
        inner = f"{path}.{name}" if path else name
        if name in _IDS and isinstance(item, str):
            try:
                changed[name] = base64.b64encode(binascii.unhexlify(item)).decode()
            except (binascii.Error, ValueError):
                dropped.append(f"{shortened(inner)}: {shortened(item, 80)!r} is not hexadecimal")
        else:
            changed[name] = _with_binary_ids(item, inner, dropped) if name in _WITH_IDS else item
    return changed


def _merge(message: Message, content: dict[str, Any], path: str, inside: bool, dropped: list[str]) -> None:
    """Reads ``content`` into ``message``, field by field; ``inside`` a span or a log record a field can be left out."""
    inside = inside or message.DESCRIPTOR.full_name in _ENTRIES
    for name, value in content.items():
        name = utf8(name)
        field = _field(message, name)
        if field is not None and field.name in _LISTS and isinstance(value, list):
            for index, item in enumerate(value):
                _add_item(getattr(message, field.name), item, f"{path}.{name}[{index}]".lstrip("."), inside, dropped)
            continue
        try:
            message.MergeFrom(json_format.ParseDict({name: value}, type(message)(), ignore_unknown_fields=True))
        except _UNREADABLE as error:
            _merge_field(message, name, value, f"{path}.{name}" if path else name, inside, dropped, error)


def _merge_field(
    message: Message, name: str, value: Any, path: str, inside: bool, dropped: list[str], error: Exception
) -> None:
    field = _field(message, name)
    inner = getattr(message, field.name) if field is not None and field.message_type is not None else None
    if isinstance(inner, Message) and isinstance(value, dict):
        inner.SetInParent()
        _merge(inner, value, path, inside, dropped)
    elif inner is not None and not isinstance(inner, Message) and isinstance(value, list):
        for index, item in enumerate(value):
            _add_item(inner, item, f"{path}[{index}]", inside, dropped)
    elif isinstance(value, str) and utf8(value) != value and inside:
        _merge(message, {name: utf8(value)}, path.rpartition(".")[0], inside, dropped)
    elif inside:
        dropped.append(f"{shortened(path)}: {shortened(error)}")
    else:
        raise PayloadError(f"the body is not OTLP/JSON: {shortened(path)}: {shortened(error)}") from error


def _add_item(items: Any, item: Any, path: str, inside: bool, dropped: list[str]) -> None:
    made = items.add()
    if made.DESCRIPTOR.full_name == _ATTRIBUTE:
        try:
            json_format.ParseDict(item, made, ignore_unknown_fields=True)
        except _UNREADABLE as error:
            del items[-1]
            key = item.get("key") if isinstance(item, dict) else None
            dropped.append(f"attribute {shortened(key)} at {shortened(path)}: {shortened(error)}")
    elif isinstance(item, dict):
        if made.DESCRIPTOR.full_name in _ENTRIES and _is_read(item, made):
            return
        named = f"{path} ({shortened(item['name'], 80)!r})" if isinstance(item.get("name"), str) else path
        _merge(made, item, named, inside, dropped)
    elif made.DESCRIPTOR.full_name in _ENTRIES:  # stays, empty: it is counted as rejected
        dropped.append(f"{shortened(path)}: expected an object, got {type(item).__name__}")
    elif inside:
        del items[-1]
        dropped.append(f"{shortened(path)}: expected an object, got {type(item).__name__}")
    else:
        raise PayloadError(f"the body is not OTLP/JSON: {shortened(path)} is a JSON {type(item).__name__}")


def _is_read(item: dict[str, Any], message: Message) -> bool:
    """Whether a span or log record could be read as it is; what a failure costs depends on its size alone."""
    try:
        json_format.ParseDict(item, message, ignore_unknown_fields=True)
        return True
    except _UNREADABLE:
        message.Clear()
        return False


def _field(message: Message, name: str) -> FieldDescriptor | None:
    descriptor = message.DESCRIPTOR
    return descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)


def _from_protobuf(body: bytes, kind: type[Message], dropped: list[str]) -> Message:
    """Where some text is not UTF-8, an attribute with it is left out; in other fields it is replaced."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        try:
            lenient = _with_bytes_for_text(kind.DESCRIPTOR.full_name).FromString(body)
            _clean(lenient, "", dropped)
            return kind.FromString(lenient.SerializeToString())
        except (DecodeError, RecursionError):
            hint = f"; it looks like JSON: send it as {JSON}" if body.lstrip()[:1] == b"{" else ""
            raise PayloadError(f"the body is no {kind.__name__} in protobuf: {error}{hint}") from error


@functools.cache
def _with_bytes_for_text(name: str) -> type[Message]:
    """The class of a message in which every text is any bytes: on the wire they are the same."""
    pool = DescriptorPool()
    for module in _FILES:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _make_bytes_of_text(message)
        pool.Add(file)
    made: type[Message] = GetMessageClass(pool.FindMessageTypeByName(name))
    return made


def _make_bytes_of_text(message: DescriptorProto) -> None:
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _make_bytes_of_text(nested)


def _clean(message: Any, where: str, dropped: list[str]) -> None:
    """Leaves out attributes with text that is not UTF-8, and replaces what is not UTF-8 elsewhere."""
    official = Default().FindMessageTypeByName(message.DESCRIPTOR.full_name)
    for field, value in message.ListFields():
        if official.fields_by_name[field.name].type == FieldDescriptor.TYPE_STRING and isinstance(value, bytes):
            setattr(message, field.name, value.decode(errors="replace").encode())
    if official.full_name in _ENTRIES:
        label = getattr(message, "name", b"") or getattr(message, "event_name", b"")
        where = f" of {shortened(label.decode(), 80)!r}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            _clean(value, where, dropped)
        elif field.message_type.full_name == _ATTRIBUTE:
            _clean_attributes(value, where, dropped)
        else:
            for item in value:
                _clean(item, where, dropped)


def _clean_attributes(pairs: Any, where: str, dropped: list[str]) -> None:
    for index in reversed(range(len(pairs))):
        try:
            common_pb2.KeyValue.FromString(pairs[index].SerializeToString())
        except DecodeError:
            key = pairs[index].key.decode(errors="replace")
            dropped.append(f"attribute {shortened(key)}{where}: it is not UTF-8")
            del pairs[index]
