"""The shapes of the OpenAI chat API: requests, errors, and the pieces of responses."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20


class ApiError(Exception):
    """An error in the OpenAI format, with its HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}


class Part(msgspec.Struct):
    """One part of a message's content; only text is understood."""

    type: str
    text: str | None = None


class Function(msgspec.Struct):
    """What an assistant calls. ``arguments`` is JSON text, which the model may have got wrong."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct):
    """A call of a tool by the assistant."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class Message(msgspec.Struct):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    """Options of a streamed response."""

    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    """The body of ``POST /v1/chat/completions``. Fields of the API that are not here do not change what is
    sampled and are passed over."""

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


_decoder = msgspec.json.Decoder(ChatRequest)


def parse_request(body: bytes, model: str) -> ChatRequest:
    """The request in ``body``. Raises `ApiError` (400; 404 for another model's name)."""
    try:
        request = _decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `")
        param = place.strip("`").removeprefix("$").removeprefix(".") or None
        field = re.search(r"field `(.+?)`", text)
        param = param or (field[1] if field else None)
        raise ApiError(400, f"{param}: {text}" if param else text, param=param) from None
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None
    _check(request, model)
    return request


def _check(request: ChatRequest, model: str) -> None:
    if request.model != model:
        unknown = f"the model {request.model!r} does not exist: this engine serves {model!r}"
        raise ApiError(404, unknown, code="model_not_found", param="model")
    if not request.messages:
        raise ApiError(400, "messages: expected at least one message", param="messages")
    for place, message in enumerate(request.messages):
        parts = message.content if isinstance(message.content, list) else []
        odd = [part.type for part in parts if part.type != "text" or part.text is None]
        if odd:
            where = f"messages[{place}].content"
            raise ApiError(400, f"{where}: a part of type {odd[0]!r} is not supported, only text", param=where)
    if request.tool_choice not in (None, "none", "auto"):
        raise ApiError(400, "tool_choice: only 'none' and 'auto' are supported", param="tool_choice")
    for place, tool in enumerate(request.tools or []):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(400, f"tools[{place}]: expected a function with a name", param=f"tools[{place}]")
    if request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
    if (request.response_format or {}).get("type", "text") != "text":
        raise ApiError(400, "response_format: only text is supported", param="response_format")
    for field in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(request, field):
            raise ApiError(400, f"{field} is not supported: it would change what is sampled", param=field)


def message_dict(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: text content, arguments as objects."""
    shown: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.text,
    }
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": arguments_of(call)},
            }
            for call in message.tool_calls
        ]
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def arguments_of(call: ToolCall) -> Any:
    """The arguments as an object, or the text itself where it is no JSON."""
    try:
        return msgspec.json.decode(call.function.arguments)
    except msgspec.DecodeError:
        return call.function.arguments
