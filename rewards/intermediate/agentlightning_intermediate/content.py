"""What stands in messages, arguments and results, whatever anybody put there. Nothing here raises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentlightning.adapterkit.attributes import parse_arguments

SHOWN_CHARACTERS = 160
"""How much of a text stands in a reason."""
LEVELS = 16
"""How deep a result is looked into."""
CONTENT = ("text", "page_content", "content", "rows", "results", "documents", "matches")
"""Where a content block, a document or a result has what it is about; the rest says how it came to be."""


def as_json(value: Any) -> str:
    """The same text for equal values, in whatever order their keys are. What cannot be written as JSON (circles, keys
    of several types) is equal to nothing but itself."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    except Exception:  # noqa: BLE001 - a number of 5,000 digits, 100,000 levels, a stranger's repr
        return f"{type(value).__name__} at {id(value):#x}"


def message_text(content: Any) -> str:
    """The text of a message's content: of content blocks their texts, joined; empty where there is none."""
    if isinstance(content, list):
        blocks = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "".join(block for block in blocks if isinstance(block, str))
    return content if isinstance(content, str) else ""


def texts_in(value: Any, levels: int = LEVELS) -> Iterator[str]:
    """Every text and number in a result or a document, down to so many levels; of a document with content only that."""
    value = parse_arguments(value)
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        yield as_json(value)
    elif isinstance(value, Mapping | list | tuple) and levels:
        for inner in _inner(value):
            yield from texts_in(inner, levels - 1)


def is_nothing(value: Any, levels: int = LEVELS) -> bool:
    """Whether a result holds nothing: none, an empty text, or a collection of nothing but such, as values or as JSON.
    What is nested deeper than so many levels holds something."""
    value = parse_arguments(value)
    if isinstance(value, Mapping | list | tuple) and levels:
        return all(is_nothing(inner, levels - 1) for inner in _inner(value))
    return value is None or (isinstance(value, str) and value.strip() in ("", "()", "None"))


def shown(value: Any, characters: int = SHOWN_CHARACTERS) -> str:
    """A value as a reason holds it: one line, and not all of a long one."""
    text = value if isinstance(value, str) else as_json(value)
    line = " ".join(text[: 4 * characters].split())
    return line if len(line) <= characters else f"{line[:characters]}…"


def _inner(value: Any) -> list[Any]:
    if not isinstance(value, Mapping):
        return list(value)
    content = next((value[key] for key in CONTENT if value.get(key) is not None), None)
    return list(value.values()) if content is None else [content]
