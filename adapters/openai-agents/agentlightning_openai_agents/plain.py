"""What agents and tools return, as plain data."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python


def plain(value: Any) -> Any:
    """``value`` with pydantic models and dataclasses as mappings; what has no such form as its text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    try:
        return to_jsonable_python(value, bytes_mode="base64", fallback=str)
    except Exception:  # noqa: BLE001 - what it returns is the agent's own affair
        return str(value)
