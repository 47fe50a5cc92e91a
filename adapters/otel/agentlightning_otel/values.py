"""OTLP values ↔ plain Python, and text that may hold anything → text that can be sent and read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList


def to_python(value: AnyValue) -> Any:
    """The plain value; bytes become base64."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [to_python(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """A message's attributes by name."""
    return {pair.key: to_python(pair.value) for pair in pairs}


def to_value(value: Any) -> AnyValue:
    """The inverse of `to_python`; what OTLP has no type for becomes text."""
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
    return AnyValue(string_value=utf8(str(value)))


def pairs_of(attributes: Mapping[Any, Any]) -> list[KeyValue]:
    """Attributes as a message holds them; those without a value are left out."""
    present = {name: value for name, value in attributes.items() if value is not None}
    return [KeyValue(key=utf8(str(name)), value=to_value(value)) for name, value in present.items()]


def utf8(text: str) -> str:
    """The text without what UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def shortened(value: object, limit: int = 300) -> str:
    """A value for a message: no longer than ``limit`` characters, and UTF-8."""
    text = utf8(str(value))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def digest(*parts: object) -> str:
    """16 hexadecimal digits that follow from the parts: the length of a span's id."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(errors="replace"), digest_size=8).hexdigest()
