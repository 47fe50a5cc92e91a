"""How families of models write tool calls: what a call begins with, and how it is read.

hermes       ``<tool_call>{"name": …, "arguments": {…}}</tool_call>``: Hermes, Qwen 2.5 and 3, and all others
qwen3-coder  ``<tool_call><function=f><parameter=x>…</parameter></function></tool_call>``; values are text, which the
             tool's schema turns into numbers, lists and objects
mistral      ``[TOOL_CALLS][{"name": …, "arguments": {…}}]``; since tokenizer v11 ``[TOOL_CALLS]f[ARGS]{…}``
llama3       ``{"name": …, "parameters": {…}}``, after ``<|python_tag|>`` or as the whole answer, parted by semicolons
pythonic     ``[f(x=1), g()]``, the whole answer: Llama 3.2; in ``<|python_start|>``: Llama 4
deepseek     ``<｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>``, all in ``<｜tool▁calls▁begin｜>``: V3.1;
             V3 and R1 write ``function<｜tool▁sep｜>f`` and fence the arguments as JSON
"""

from __future__ import annotations

import ast
import json
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

Schemas = Mapping[str, Any]
"""The parameters of each tool on offer, as its JSON schema says."""


class Call(NamedTuple):
    """A call as it was written; its arguments are not checked yet."""

    name: Any
    arguments: Any
    id: str | None = None


Read = Callable[[str, int, Schemas], tuple[list[Call], int] | None]
"""``read(text, at, schemas)``: the calls that are written at ``at``, where an opening mark begins, and where they end;
None where they are not well-formed."""


@dataclass(frozen=True)
class ToolFormat:
    """One way to write calls. ``marks`` are the tokens that it needs to see, special or not; the first ``openings`` of
    them begin a call. ``evidence`` is what chat templates of such models contain."""

    name: str
    marks: tuple[str, ...]
    read: Read
    openings: int = 1
    evidence: tuple[str, ...] = ()
    id_size: int | None = None
    """How long a call's id must be, where the template counts."""

    @property
    def opening(self) -> tuple[str, ...]:
        """The marks with which a call begins."""
        return self.marks[: self.openings]

    def new_id(self) -> str:
        """An id for a call that has none."""
        return (
            f"call_{secrets.token_hex(12)}" if self.id_size is None else secrets.token_hex(self.id_size)[: self.id_size]
        )


def recognise(template: str) -> ToolFormat:
    """The format in which the models of a chat template write their calls."""
    matching = (format for format in FORMATS.values() if any(sign in template for sign in format.evidence))
    return next(matching, FORMATS["hermes"])


def json_at(text: str, at: int) -> tuple[Any, int]:
    """The JSON value at ``at``, after white space, and where it ends; (None, ``at``) where there is none."""
    try:
        return _json.raw_decode(text, skip_space(text, at))
    except (ValueError, RecursionError):
        return None, at


def skip_space(text: str, at: int) -> int:
    """Where the white space at ``at`` ends."""
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def json_calls(text: str, at: int) -> tuple[list[Call], int]:
    """Calls as JSON: one object, a list of them, or several parted by semicolons; none where one is no call."""
    calls: list[Call] = []
    while True:
        value, end = json_at(text, at)
        calls += [_json_call(each) for each in (value if isinstance(value, list) else [value])]
        after = skip_space(text, end)
        if end == at or not text.startswith(";", after):
            return calls, end
        at = after + 1


def python_calls(text: str) -> list[Call]:
    """A Python list of calls whose arguments are named literals; empty where it is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List) else []
        return [_python_call(node) for node in nodes]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("no call with named arguments")
    arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    return Call(ast.unparse(node.func), json.loads(json.dumps(arguments, allow_nan=False)))


def _json_call(value: Any) -> Call:
    if not isinstance(value, dict):
        return Call(None, None)
    id = value.get("id")
    return Call(
        value.get("name"), value.get("arguments", value.get("parameters", {})), id if isinstance(id, str) else None
    )


def _skip(text: str, at: int, mark: str) -> int:
    """After white space and ``mark``, where it is there; else ``at``."""
    start = skip_space(text, at)
    return start + len(mark) if text.startswith(mark, start) else at


def _read_hermes(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    value, end = json_at(text, at + len("<tool_call>"))
    return ([_json_call(value)], _skip(text, end, "</tool_call>")) if isinstance(value, dict) else None


def _read_qwen3_coder(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    head = _FUNCTION.match(text, at)
    end = text.find("</function>", at)
    if head is None or end < 0:
        return None
    body = text[head.end() : end]
    if _PARAMETER.sub("", body).strip():
        return None
    types = _types(schemas.get(head[1]))
    arguments = {name: _typed(value, types.get(name)) for name, value in _PARAMETER.findall(body)}
    return [Call(head[1], arguments)], _skip(text, end + len("</function>"), "</tool_call>")


def _types(schema: Any) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    properties = properties if isinstance(properties, dict) else {}
    return {name: each.get("type") for name, each in properties.items() if isinstance(each, dict)}


def _typed(text: str, type: Any) -> Any:
    """A value that was written as text, as its schema's type; text where that is what it is, or nothing else fits."""
    if type is None or "string" in (type if isinstance(type, list) else [type]):
        return text
    if text.strip() in _CONSTANTS:
        return _CONSTANTS[text.strip()]
    value, end = json_at(text, 0)
    return value if end and not text[end:].strip() else text


def _read_mistral(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    start = skip_space(text, at + len("[TOOL_CALLS]"))
    if text[start : start + 1] in ("[", "{"):
        calls, end = json_calls(text, start)
        return (calls, end) if end > start else None
    head = _MISTRAL_NAME.match(text, start)
    arguments, end = json_at(text, head.end()) if head is not None else (None, start)
    return ([Call(head[1], arguments, head[2])], end) if head is not None and isinstance(arguments, dict) else None


def _read_llama3(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    start = at + len("<|python_tag|>")
    calls, end = json_calls(text, start)
    return (calls, end) if end > start else None


def _read_pythonic(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    start = at + len("<|python_start|>")
    end = text.find("<|python_end|>", start)
    calls = python_calls(text[start : end if end >= 0 else len(text)])
    return (calls, end + len("<|python_end|>") if end >= 0 else len(text)) if calls else None


def _read_deepseek(text: str, at: int, schemas: Schemas) -> tuple[list[Call], int] | None:
    calls: list[Call] = []
    end = at
    for call, after in _deepseek_calls(text, _skip(text, at, _DEEPSEEK[0])):
        calls.append(call)
        end = after
    return (calls, _skip(text, end, "<｜tool▁calls▁end｜>")) if calls else None


def _deepseek_calls(text: str, at: int) -> Iterator[tuple[Call, int]]:
    while (head := _DEEPSEEK_HEAD.match(text, at)) is not None:
        arguments, end = json_at(text, head.end())
        if not isinstance(arguments, dict):
            return
        at = _skip(text, _skip(text, end, "```"), "<｜tool▁call▁end｜>")
        yield Call(head[1] or head[2], arguments), at


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON and a double can both hold")
    return number


_json = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
_SPACE = re.compile(r"\s*")
_CONSTANTS = {"True": True, "False": False, "None": None}
_FUNCTION = re.compile(r"(?:<tool_call>\s*)?<function=([^>\n]+)>")
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_MISTRAL_NAME = re.compile(r"([^\[\]{}\s]+)(?:\[CALL_ID\]([^\[\s]+))?\s*(?:\[ARGS\])?")
_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)
_DEEPSEEK_HEAD = re.compile(
    r"\s*<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>([^\n<]+)\n```json|([^\n<]+)<｜tool▁sep｜>)"
)

FORMATS = {
    format.name: format
    for format in (
        ToolFormat(
            "qwen3-coder", ("<tool_call>", "<function=", "</tool_call>"), _read_qwen3_coder, 2, evidence=("<function=",)
        ),
        ToolFormat("deepseek", _DEEPSEEK, _read_deepseek, 2, evidence=("tool▁call▁begin",)),
        ToolFormat(
            "mistral",
            ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
            _read_mistral,
            evidence=("[TOOL_CALLS]",),
            id_size=9,
        ),
        ToolFormat("hermes", ("<tool_call>", "</tool_call>"), _read_hermes, evidence=("<tool_call>",)),
        ToolFormat(
            "pythonic",
            ("<|python_start|>", "<|python_end|>"),
            _read_pythonic,
            evidence=("func_name1(", "<|python_start|>"),
        ),
        ToolFormat("llama3", ("<|python_tag|>",), _read_llama3, evidence=("<|python_tag|>", '"parameters": ')),
    )
}
"""By name; of those that a template has evidence for, the first counts."""
