"""What agents and tools take and return, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def plain(value: Any, convert: Callable[[Any], Any] | None = None) -> Any:
    """``value`` with every mapping, pydantic model and dataclass in it as a dict, every other collection as a list, and
    members of enums as their values. Anything else stays what it is.

    ``convert`` is given whatever is no text, number or collection, and returns what stands for it, or the value itself.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(item, convert) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, convert) for item in value]
    converted = convert(value) if convert is not None else value
    if converted is not value:
        return converted
    if isinstance(value, type):
        return value
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name), convert) for field in fields(value)}
    models: Mapping[str, Any] | None = getattr(type(value), "model_fields", None)
    if models is None:
        return value
    shown = {name: getattr(value, name) for name, field in models.items() if not field.exclude}
    return plain({**shown, **(getattr(value, "model_extra", None) or {})}, convert)
