"""Reads of a request what can be read, and says what cannot: one bad attribute costs itself, not its batch.

JSON is read field by field where it cannot be read whole. Protobuf has one thing that can be wrong in the middle of
a well-formed message: text that is not UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from agentlightning_otel.errors import PayloadError
from agentlightning_otel.text import clipped, sendable

M = TypeVar("M", bound=Message)

_FILES = (common_pb2, resource_pb2, trace_pb2, logs_pb2, trace_service_pb2, logs_service_pb2)
_ATTRIBUTE = common_pb2.KeyValue.DESCRIPTOR.full_name
_ENTRIES = (trace_pb2.Span.DESCRIPTOR.full_name, logs_pb2.LogRecord.DESCRIPTOR.full_name)
"""What a request is made of: below one of these a field can go, above it the request is malformed."""
_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
"""OTLP/JSON writes these in hexadecimal, where the JSON of protobuf has base64."""
_WITH_IDS = (
    *("resourceSpans", "scopeSpans", "spans", "links", "resourceLogs", "scopeLogs", "logRecords"),
    *("resource_spans", "scope_spans", "resource_logs", "scope_logs", "log_records"),
)
"""Where they are, and what leads there."""
_UNREADABLE = (
    json_format.ParseError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    SystemError,
)
"""What `json_format` raises, by what is wrong; the last where a name has a lone surrogate."""


def from_json(content: dict[str, Any], kind: type[M], dropped: list[str]) -> M:
    """A message of ``kind`` from OTLP/JSON; adds to ``dropped`` what was left out.

    Raises `PayloadError` where what is wrong is not within a span or a log record.
    """
    content = _with_binary_ids(content, "", dropped)
    try:
        return json_format.ParseDict(content, kind(), ignore_unknown_fields=True)
    except _UNREADABLE:
        message: M = kind()
        _merge(message, content, "", False, dropped)
        return message


def from_protobuf(body: bytes, kind: type[M], dropped: list[str]) -> M | None:
    """A message of ``kind`` some of whose text is not UTF-8; None where the body is no such message.

    An attribute with such text is left out, and ``dropped`` told; in other places it is replaced.
    """
    lenient = _with_bytes_for_text(kind.DESCRIPTOR.full_name)()
    try:
        lenient.ParseFromString(body)
        _clean(lenient, "", dropped)
        message: M = kind()
        message.ParseFromString(lenient.SerializeToString())
    except (DecodeError, RecursionError):
        return None
    return message


def _merge(message: Message, content: dict[str, Any], path: str, within: bool, dropped: list[str]) -> None:
    """Reads ``content`` into ``message``, field by field; ``within`` a span or a log record fields can go."""
    within = within or message.DESCRIPTOR.full_name in _ENTRIES
    for name, value in content.items():
        name = sendable(name)
        try:
            message.MergeFrom(json_format.ParseDict({name: value}, type(message)(), ignore_unknown_fields=True))
        except _UNREADABLE as error:
            _merge_field(message, name, value, f"{path}.{name}" if path else name, within, dropped, error)


def _merge_field(
    message: Message, name: str, value: Any, path: str, within: bool, dropped: list[str], error: Exception
) -> None:
    field = _field(message, name)
    below = getattr(message, field.name) if field is not None and field.message_type is not None else None
    if isinstance(below, Message) and isinstance(value, dict):
        below.SetInParent()
        _merge(below, value, path, within, dropped)
    elif below is not None and not isinstance(below, Message) and isinstance(value, list):
        for place, item in enumerate(value):
            _add_item(below, item, f"{path}[{place}]", within, dropped)
    elif isinstance(value, str) and sendable(value) != value and within:
        _merge(message, {name: sendable(value)}, path.rpartition(".")[0], within, dropped)
    elif within:
        dropped.append(f"{clipped(path)}: {clipped(error)}")
    else:
        raise PayloadError(f"the body is not OTLP/JSON: {clipped(path)}: {clipped(error)}") from error


def _add_item(items: Any, item: Any, path: str, within: bool, dropped: list[str]) -> None:
    kind = items.add()
    del items[-1]
    entry = kind.DESCRIPTOR.full_name in _ENTRIES
    if kind.DESCRIPTOR.full_name == _ATTRIBUTE:
        try:
            items.append(json_format.ParseDict(item, type(kind)(), ignore_unknown_fields=True))
        except _UNREADABLE as error:
            key = item.get("key") if isinstance(item, dict) else None
            dropped.append(f"attribute {clipped(key)} at {clipped(path)}: {clipped(error)}")
    elif isinstance(item, dict):
        named = f"{path} ({clipped(item['name'], 80)!r})" if isinstance(item.get("name"), str) else path
        _merge(items.add(), item, named, within, dropped)
    elif entry or within:
        dropped.append(f"{clipped(path)}: expected an object, got {type(item).__name__}")
        if entry:
            items.add()
    else:
        raise PayloadError(f"the body is not OTLP/JSON: {clipped(path)} is a JSON {type(item).__name__}")


def _field(message: Message, name: str) -> FieldDescriptor | None:
    descriptor = message.DESCRIPTOR
    return descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)


def _with_binary_ids(value: Any, path: str, dropped: list[str]) -> Any:
    if isinstance(value, list):
        return [_with_binary_ids(item, f"{path}[{place}]", dropped) for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    changed = {}
    for name, item in value.items():
        below = f"{path}.{name}" if path else name
        if name in _IDS and isinstance(item, str):
            try:
                changed[name] = base64.b64encode(binascii.unhexlify(item)).decode()
            except (binascii.Error, ValueError):
                dropped.append(f"{clipped(below)}: {clipped(item, 80)!r} is not hexadecimal")
        else:
            changed[name] = _with_binary_ids(item, below, dropped) if name in _WITH_IDS else item
    return changed


@functools.cache
def _with_bytes_for_text(name: str) -> type[Message]:
    """The class of a message in which what is text is any bytes: on the wire they are the same."""
    pool = DescriptorPool()
    for module in _FILES:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            _make_bytes_of_text(message)
        pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(name))


def _make_bytes_of_text(message: DescriptorProto) -> None:
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _make_bytes_of_text(nested)


def _clean(message: Message, where: str, dropped: list[str]) -> None:
    """Leaves out attributes with text that is no UTF-8, and replaces what is none elsewhere."""
    texts = _texts(message)
    for field, value in message.ListFields():
        if field.name in texts and isinstance(value, bytes):
            setattr(message, field.name, value.decode(errors="replace").encode())
    if message.DESCRIPTOR.full_name in _ENTRIES:
        label = getattr(message, "name", b"") or getattr(message, "event_name", b"")
        where = f" of {clipped(label.decode(errors='replace'), 80)!r}"
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
    for place in reversed(range(len(pairs))):
        if not all(map(_is_utf8, _text_in(pairs[place]))):
            key = pairs[place].key.decode(errors="replace")
            dropped.append(f"attribute {clipped(key)}{where}: it is not UTF-8")
            del pairs[place]


def _text_in(message: Message) -> Iterator[bytes]:
    texts = _texts(message)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if isinstance(value, Message) else value:
                yield from _text_in(item)
        elif field.name in texts:
            yield from [value] if isinstance(value, bytes) else value


def _texts(message: Message) -> frozenset[str]:
    """Which of the fields of a message are text in the message as it is officially."""
    return _text_fields()[message.DESCRIPTOR.full_name]


@functools.cache
def _text_fields() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}

    def look(descriptor: Any) -> None:
        texts = (field.name for field in descriptor.fields if field.type == FieldDescriptor.TYPE_STRING)
        found[descriptor.full_name] = frozenset(texts)
        for nested in descriptor.nested_types:
            look(nested)

    for module in _FILES:
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            look(descriptor)
    return found


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
