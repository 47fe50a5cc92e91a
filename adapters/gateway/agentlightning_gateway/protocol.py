"""What the APIs share: messages, errors, and what a request may ask of sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from agentlightning.sampler import MAX_TEMPERATURE

MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20
MAX_MESSAGE = 2000
"""Characters of an error, which may quote what was sent."""
MAX_DEPTH = 128
"""Levels of JSON, of a request and of a tool call's arguments."""


class ErrorDetails(msgspec.Struct):
    """What was wrong with a request, or went wrong with it, and in which field."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ApiErrorBody(msgspec.Struct):
    """The body of an error in the OpenAI format."""

    error: ErrorDetails


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
        message = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …"
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
    reasoning_content: str | None = None
    function_call: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class Replay(msgspec.Struct, kw_only=True, frozen=True):
    """An answer that was sampled before, to be given again: its prompt (P,), its tokens (R,) and their
    log-probabilities (R,). It has one choice."""

    prompt_token_ids: list[int]
    token_ids: Annotated[list[int], msgspec.Meta(min_length=1)]
    logprobs: list[float]
    policy_version: int | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """What every request says of how it is to be sampled. `fields` says what becomes of all other fields."""

    model: str
    temperature: Annotated[float, msgspec.Meta(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    stream: bool | None = None
    return_token_ids: bool | None = None
    unconstrained: bool | None = None
    replay: Replay | None = None


class StreamOptions(msgspec.Struct):
    """Options of a streamed response."""

    include_usage: bool | None = None


class GenerationRequest(msgspec.Struct, kw_only=True, frozen=True):
    """A request as the engine takes it, whichever API it came by. ``max_tokens`` None leaves the length to the
    engine; ``top_logprobs`` None wants no log-probabilities; ``tools`` are those that the template shows."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    n: int = 1
    top_logprobs: int | None = None
    stream: bool = False
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    """Whether log-probabilities name tokens as ``token_id:7``: no two tokens do so alike, as their texts may."""
    tools: list[dict[str, Any]] | None = None
    calls_tools: bool = False
    """Whether calls of tools are read out of what the model writes."""
    parallel_calls: bool = True
    template: dict[str, Any] = {}
    """Variables for the chat template."""
    unconstrained: bool = False
    """Whether wishes how the model is to write are passed over where they cannot be honoured."""
    replay: Replay | None = None
    """What is answered in place of what would be sampled."""


def sampling_options(request: SamplingFields) -> dict[str, Any]:
    """The fields of `GenerationRequest` that every API names alike."""
    return {
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": request.top_p or 1.0,
        "top_k": max(request.top_k or 0, 0),
        "min_p": request.min_p or 0.0,
        "seed": request.seed,
        "stop_ids": frozenset(request.stop_token_ids or ()),
        "stream": bool(request.stream),
        "return_token_ids": bool(request.return_token_ids),
        "unconstrained": bool(request.unconstrained),
        "replay": request.replay,
    }


def message_dict(message: Message, *, arguments_as_text: bool = False) -> dict[str, Any]:
    """A message as chat templates expect it: text content, arguments as objects, which few expect as JSON text."""
    shown: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.text,
    }
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.arguments if arguments_as_text else arguments_of(call),
                },
            }
            for call in message.tool_calls
        ]
    if message.reasoning_content is not None:
        shown["reasoning_content"] = message.reasoning_content
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def arguments_of(call: ToolCall) -> Any:
    """The arguments as an object, or the text itself where it is no JSON. Raises `ApiError` where it nests too deep."""
    try:
        arguments = msgspec.json.decode(call.function.arguments)
        if not too_deep(arguments):
            return arguments
    except RecursionError:
        pass
    except (msgspec.DecodeError, ValueError):
        return call.function.arguments
    raise ApiError(400, f"tool_calls: arguments are nested more than {MAX_DEPTH} levels deep", param="messages")


def too_deep(value: Any) -> bool:
    """Whether JSON is nested more than `MAX_DEPTH` levels deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return False
        level = [
            below
            for each in level
            if isinstance(each, dict | list)
            for below in (each.values() if isinstance(each, dict) else each)
        ]
    return True
