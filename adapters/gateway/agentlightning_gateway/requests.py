"""Bytes → a request, checked: what cannot be honoured is answered with what it was and where."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from agentlightning_gateway.fields import check_constraint, check_fields, say_unconstrained
from agentlightning_gateway.protocol import MAX_DEPTH, ApiError, Message, SamplingFields, too_deep

R = TypeVar("R", bound=SamplingFields)

MAX_STOPS = 32
MAX_STOP_LENGTH = 1024
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(body: bytes, type: type[R], model: str) -> R:
    """The request in ``body``. Raises `ApiError` (400; 404 for another model's name)."""
    try:
        body.decode()  # what is passed over is not decoded, but must be UTF-8 all the same
        # undecoded values, and then only those that are honoured: a megabyte of others would hold up everybody
        check_fields(_fields.decode(body), [field.encode_name for field in msgspec.structs.fields(type)])
        request: R = _decoder(type).decode(body)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `")
        param = path.strip("`").removeprefix("$").removeprefix(".") or None
        field = re.search(r"field `(.+?)`", text)
        param = param or (field[1] if field else None)
        raise ApiError(400, f"{param}: {text}" if param else text, param=param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = " (half of a surrogate pair is no text)" if _HALF_PAIR.search(body) else ""
        raise ApiError(400, f"the body is no JSON in UTF-8: {error}{hint}") from None
    except RecursionError:
        raise ApiError(400, f"the body is nested more than {MAX_DEPTH} levels deep") from None
    for name, value in msgspec.structs.asdict(request).items():
        if too_deep(value):
            raise ApiError(400, f"{name} is nested more than {MAX_DEPTH} levels deep", param=name)
    if request.model != model:
        unknown = f"the model {_short(request.model)} does not exist: this gateway serves {model!r}"
        raise ApiError(404, unknown, code="model_not_found", param="model")
    return request


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@functools.cache
def _decoder(type: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(type)


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Raises `ApiError` for more, or longer ones, than anybody waits for."""
    stops = tuple(each for each in ([stop] if isinstance(stop, str) else stop or []) if each)
    if len(stops) > MAX_STOPS or any(len(each) > MAX_STOP_LENGTH for each in stops):
        limits = f"at most {MAX_STOPS} strings of at most {MAX_STOP_LENGTH} characters"
        raise ApiError(400, f"stop: expected {limits}", param="stop")
    return stops


def check_messages(messages: Sequence[Message]) -> None:
    """Raises `ApiError` where there is none, or one holds more than text and tool calls."""
    if not messages:
        raise ApiError(400, "messages: expected at least one message", param="messages")
    for index, message in enumerate(messages):
        parts = message.content if isinstance(message.content, list) else []
        odd = [part.type for part in parts if part.type != "text" or part.text is None]
        if odd:
            where = f"messages[{index}].content"
            raise ApiError(400, f"{where}: a part of type {odd[0]!r} is not supported, only text", param=where)
        for field in ("function_call", "audio"):
            if getattr(message, field) is not None:
                where = f"messages[{index}].{field}"
                raise ApiError(400, f"{where} is not supported, only text and tool_calls", param=where)


def check_tools(tools: list[dict[str, Any]] | None, tool_choice: Any, *, unconstrained: bool) -> None:
    """Raises `ApiError` for tools (in the shape of the chat API) that cannot be offered, or cannot be forced."""
    if isinstance(tool_choice, dict) or tool_choice == "required":
        check_constraint(f"tool_choice {_short(tool_choice)}", unconstrained=unconstrained, param="tool_choice")
    elif tool_choice not in (None, "none", "auto"):
        raise ApiError(400, "tool_choice: expected 'none' or 'auto'", param="tool_choice")
    for index, tool in enumerate(tools or []):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(400, f"tools[{index}]: expected a function with a name", param=f"tools[{index}]")
        if function.get("strict"):
            say_unconstrained("strict tools")


def check_format(format: dict[str, Any] | None, param: str, *, unconstrained: bool) -> None:
    """Raises `ApiError` for another format than text: nothing enforces it."""
    kind = (format or {}).get("type", "text")
    if kind in ("json_object", "json_schema"):
        check_constraint(f"{param} {kind}", unconstrained=unconstrained, param=param)
    elif kind != "text":
        raise ApiError(400, f"{param}: expected text, json_object or json_schema, got {_short(kind)}", param=param)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} …"
