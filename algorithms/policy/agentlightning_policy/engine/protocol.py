"""What the APIs share: messages, errors, and what a request may ask of sampling."""

from __future__ import annotations

import functools
import logging
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec

logger = logging.getLogger(__name__)

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


class Sampled(msgspec.Struct, kw_only=True):
    """What every request says of how it is to be sampled. Fields of the API that are not here do not change
    what is sampled and are passed over."""

    model: str
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stream: bool | None = None
    return_token_ids: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None


class StreamOptions(msgspec.Struct):
    """Options of a streamed response."""

    include_usage: bool | None = None


class Asked(msgspec.Struct, kw_only=True, frozen=True):
    """A request as the engine takes it, whichever API it came by. ``max_tokens`` None leaves the length to the
    engine; ``top_logprobs`` None wants no log-probabilities; ``tools`` are those that the template shows."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    stream: bool = False
    return_token_ids: bool = False
    tools: list[dict[str, Any]] | None = None
    calls_tools: bool = False
    """Whether calls of tools are read out of what the model writes."""


R = TypeVar("R", bound=Sampled)


def decode(body: bytes, decoder: msgspec.json.Decoder[R], model: str) -> R:
    """The request in ``body``. Raises `ApiError` (400; 404 for another model's name)."""
    try:
        request = decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `")
        param = place.strip("`").removeprefix("$").removeprefix(".") or None
        field = re.search(r"field `(.+?)`", text)
        param = param or (field[1] if field else None)
        raise ApiError(400, f"{param}: {text}" if param else text, param=param) from None
    except msgspec.DecodeError as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None
    if request.model != model:
        unknown = f"the model {request.model!r} does not exist: this engine serves {model!r}"
        raise ApiError(404, unknown, code="model_not_found", param="model")
    for field in ("frequency_penalty", "presence_penalty", "logit_bias"):
        if getattr(request, field):
            raise ApiError(400, f"{field} is not supported: it would change what is sampled", param=field)
    return request


def check_tools(tools: list[dict[str, Any]] | None, tool_choice: Any) -> None:
    """Raises `ApiError` for tools (in the shape of the chat API) that cannot be offered, or cannot be forced."""
    if tool_choice not in (None, "none", "auto"):
        raise ApiError(400, "tool_choice: only 'none' and 'auto' are supported", param="tool_choice")
    for place, tool in enumerate(tools or []):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(400, f"tools[{place}]: expected a function with a name", param=f"tools[{place}]")


def check_format(format: dict[str, Any] | None, param: str) -> None:
    """A wish for JSON is accepted, and nothing enforces it: what is drawn must be the policy's own choice, or its
    log-probabilities would be another distribution's. Raises `ApiError` for a format that does not exist."""
    kind = (format or {}).get("type", "text")
    if kind in ("json_object", "json_schema"):
        _say_unconstrained(kind)
    elif kind != "text":
        raise ApiError(400, f"{param}: expected text, json_object or json_schema, got {kind!r}", param=param)


@functools.cache
def _say_unconstrained(kind: str) -> None:
    logger.warning(
        "the agent asks for %s: nothing constrains the policy to it; ask for it in the prompt, and reward it", kind
    )


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
