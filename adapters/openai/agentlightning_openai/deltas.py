"""The deltas of a streamed message, joined into what the whole message would have said.

The client's own accumulator (``openai.lib.streaming.chat``) follows OpenAI's format to the letter: it raises on a list
whose entries have no index (reasoning details, annotations), on an index of null, and joins what endpoints repeat on
every chunk (ids, names). Here every field is kept, known or not:

- A string that is written piece by piece (`_WRITTEN`, and any field of the message itself) is joined.
- A string that names something (`_NAMING`) is the last one given; any other is joined, unless it is only repeated.
- Of a number or a truth value the last one counts; dictionaries are joined field by field.
- An entry of a list goes on with an earlier one where both have the same index; without any, with the last one where
  both are pieces of one text. Else it is a new entry.
"""

from __future__ import annotations

import json
from typing import Any

_THOUGHTS = ("reasoning", "reasoning_content", "summary", "thinking")
_WRITTEN = frozenset((*_THOUGHTS, "arguments", "content", "data", "input", "refusal", "text", "transcript"))
_NAMING = frozenset(("format", "id", "index", "object", "role", "status", "type", "url"))
_SIGNATURE = "signature"


class _Text(list[str]):
    """A string as its pieces."""


class MessageJoiner:
    """One message."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {"role": "assistant", "content": None}
        self._calls = ToolCallJoiner()

    def add(self, delta: Any) -> bool:
        """Takes a delta; whether it says something."""
        says = False
        for name, value in fields_of(delta).items():
            if value is None or value == "" or value == []:
                continue
            if name == "tool_calls" and isinstance(value, list):
                for piece in value:
                    self._calls.add(fields_of(piece))
            else:
                self._fields[name] = _joined(self._fields.get(name), value, name, written=True)
            says = says or name != "role"
        return says

    def message(self) -> dict[str, Any]:
        """What was said so far."""
        message = {name: _whole(value) for name, value in self._fields.items()}
        calls = self._calls.whole()
        return {**message, "tool_calls": calls} if calls else message


class ToolCallJoiner:
    """The tool calls of one message, in the order of their index, else in that in which they began."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []

    def add(self, piece: dict[str, Any]) -> None:
        """Takes a piece of a call, or a whole one."""
        call = self._continued_by(piece)
        if call is None:
            kind = "custom" if piece.get("custom") is not None else "function"
            written = "input" if kind == "custom" else "arguments"
            call = {"index": piece.get("index"), "id": None, "type": kind, kind: {"name": _Text(), written: _Text()}}
            self._calls.append(call)
        for name, value in piece.items():
            if value is None or name == "index" or (name == "id" and (call["id"] or not value)):
                continue
            call[name] = _joined(call.get(name), value, name)

    def whole(self) -> list[dict[str, Any]]:
        """The calls so far."""
        calls = self._calls
        if all(isinstance(call["index"], int) for call in calls):
            calls = sorted(calls, key=lambda call: call["index"])
        return [{name: _whole(value) for name, value in call.items() if name != "index"} for call in calls]

    def _continued_by(self, piece: dict[str, Any]) -> dict[str, Any] | None:
        """The call that a piece goes on with; None where it begins one.

        A call begins with a name. Beyond that endpoints differ: an index of its own, the same for every call, or
        none; an id on each piece, on the first only, a new one on each, or none at all; the name again on each piece.
        """
        index, id = piece.get("index"), piece.get("id")
        name, written = _name_and_arguments(piece)
        there = [call for call in self._calls if index is None or call["index"] in (index, None)]
        of_this_id = [call for call in there if id and _whole(call["id"]) == id]
        if not there:
            return None
        call = (of_this_id or there)[-1]
        if not name:
            return call
        if id and call["id"] and not of_this_id:
            return None
        known_name, known_written = _name_and_arguments(call)
        if written and _is_complete(known_written):
            return None
        in_pieces = index is not None and not written and not known_written
        return call if of_this_id or name == known_name or in_pieces else None


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a parsed object, known and unknown; of what the client could not parse, those it has."""
    if isinstance(value, dict):
        return value
    fields, extra = getattr(value, "__dict__", {}), getattr(value, "model_extra", None)
    return {**fields, **extra} if extra else fields


def plain(value: Any) -> Any:
    """A parsed object as a dictionary of what was given; anything else as it is."""
    return value.to_dict() if hasattr(value, "to_dict") else value


def _name_and_arguments(call: dict[str, Any]) -> tuple[Any, Any]:
    """Name, and arguments or input, of a call or a piece of one."""
    function = fields_of(call.get("function") or call.get("custom"))
    return _whole(function.get("name")), _whole(function.get("arguments") or function.get("input"))


def _is_complete(arguments: Any) -> bool:
    if not isinstance(arguments, str):
        return arguments is not None
    if not arguments.rstrip().endswith("}"):
        return False
    try:
        json.loads(arguments)
    except ValueError:
        return False
    return True


def _joined(known: Any, new: Any, name: str = "", *, written: bool = False) -> Any:
    """``known``, which it may change, followed by ``new``, which it does not."""
    new = plain(new)
    if new is None:
        return known
    if isinstance(new, str):
        return _joined_text(known, new, name, written=written or name in _WRITTEN)
    if isinstance(new, dict):
        fields = known if isinstance(known, dict) else {}
        for key, value in new.items():
            fields[key] = _joined(fields.get(key), value, key)
        return fields
    if isinstance(new, list):
        return _joined_entries(_entries(known), new)
    return new


def _joined_text(known: Any, new: str, name: str, *, written: bool) -> Any:
    if isinstance(known, list) and not isinstance(known, _Text):
        return _joined_entries(known, [{"type": "text", "text": new}])
    if not isinstance(known, _Text):
        return _Text([new])
    if name in _NAMING:
        return _Text([new]) if new else known
    if written or _whole(known) != new:
        known.append(new)
    return known


def _entries(known: Any) -> list[Any]:
    """What a list goes on with: content may begin as a string and go on in parts."""
    if isinstance(known, _Text):
        return [{"type": _Text(["text"]), "text": known}]
    return known if isinstance(known, list) else []


def _joined_entries(known: list[Any], new: list[Any]) -> list[Any]:
    before = len(known)
    for entry in new:
        fields = fields_of(entry)
        if fields.get("index") is not None:
            at = next((index for index in reversed(range(len(known))) if _has_index(known[index], fields)), None)
        else:
            last = before - 1
            first_of_new = len(known) == before
            at = last if first_of_new and last >= 0 and _is_text_of(known[last], fields) else None
        if at is None:
            known.append(_joined(None, entry))
        else:
            known[at] = _joined(known[at], entry)
    return known


def _has_index(known: Any, entry: dict[str, Any]) -> bool:
    return isinstance(known, dict) and known.get("index") == entry["index"] and _may_be_one(known, entry)


def _may_be_one(known: dict[str, Any], entry: dict[str, Any]) -> bool:
    names = [(known.get(name), entry.get(name)) for name in ("type", "id")]
    return all(before is None or after is None or _whole(before) == after for before, after in names)


def _is_text_of(known: Any, entry: dict[str, Any]) -> bool:
    """Whether an entry is the next piece of a text: of a thought, say, until its signature has come."""
    if not isinstance(known, dict) or known.get(_SIGNATURE) or not _may_be_one(known, entry):
        return False
    return bool(_WRITTEN & known.keys() & entry.keys()) or bool(entry.get(_SIGNATURE))


def _whole(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
