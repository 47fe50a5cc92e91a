"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec

from agentlightning.sampler import SampledToken
from agentlightning_gateway.completions import Completions, Generation, RequestHandle, event
from agentlightning_gateway.protocol import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    ApiError,
    GenerationRequest,
    Message,
    SamplingFields,
    StreamOptions,
    sampling_options,
)
from agentlightning_gateway.requests import check_format, check_messages, check_tools, decode, stop_strings
from agentlightning_gateway.sessions import Prompt


class ChatRequest(SamplingFields, kw_only=True):
    """The body of a request."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def generation_request(self) -> GenerationRequest:
        """Raises `ApiError` for what the engine does not do."""
        unconstrained = bool(self.unconstrained)
        check_messages(self.messages)
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        check_tools(self.tools, self.tool_choice, unconstrained=unconstrained)
        check_format(self.response_format, "response_format", unconstrained=unconstrained)
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return GenerationRequest(
            **sampling_options(self),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stops=stop_strings(self.stop),
            n=self.n or 1,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=self.tools,
            calls_tools=self.tool_choice != "none",
            parallel_calls=self.parallel_tool_calls is not False,
            template={**effort, **(self.chat_template_kwargs or {})},
        )


class ChatApi:
    """Chat completions, whole and streamed."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def read(self, data: bytes, rollout: str | None) -> tuple[ChatRequest, GenerationRequest, list[Prompt]]:
        """The request and its prompt. Raises `ApiError`."""
        body = decode(data, ChatRequest, self._completions.info.name)
        request = body.generation_request()
        return body, request, [self._completions.chat_prompt(request, body.messages, rollout)]

    def whole(self, body: ChatRequest, handle: RequestHandle) -> dict[str, Any]:
        """The response, once it is complete. Safe to call from any thread."""
        choices = [self._choice(index, generation) for index, generation in enumerate(handle.generations)]
        response = {**self._head(handle, "chat.completion"), "choices": choices, "usage": usage(handle)}
        if handle.request.return_token_ids:
            response["prompt_token_ids"] = handle.generations[0].prompt.ids.tolist()
        return response

    async def chunks(self, body: ChatRequest, handle: RequestHandle) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first chunk is the last event."""
        first: dict[str, Any] = {}
        if handle.request.return_token_ids:
            first = {"prompt_token_ids": handle.generations[0].prompt.ids.tolist()}
        streams = [_Stream(self._completions, index, generation) for index, generation in enumerate(handle.generations)]
        for stream in streams:
            yield self._event(handle, [stream.opening()], **first)
            first = {}
        try:
            async for _ in handle.steps():
                for stream in streams:
                    for choice in stream.progress():
                        yield self._event(handle, [choice])
        except ApiError as error:
            yield event(error.body)
            return
        if body.stream_options is not None and body.stream_options.include_usage:
            yield self._event(handle, [], usage=usage(handle))
        yield b"data: [DONE]\n\n"

    def _choice(self, index: int, generation: Generation) -> dict[str, Any]:
        message = self._completions.message(generation)
        shown: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.tool_calls:
            shown["tool_calls"] = msgspec.to_builtins(message.tool_calls)
        choice: dict[str, Any] = {
            "index": index,
            "message": shown,
            "finish_reason": finish_reason(generation, message),
            "logprobs": None,
        }
        if generation.request.top_logprobs is not None:
            choice["logprobs"] = _logprobs(self._completions, generation.tokens)
        if generation.request.return_token_ids:
            choice["token_ids"] = generation.ids
        return choice

    def _head(self, handle: RequestHandle, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{handle.key}",
            "object": kind,
            "created": handle.created,
            **self._completions.identity(handle),
        }

    def _event(self, handle: RequestHandle, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        return event({**self._head(handle, "chat.completion.chunk"), "choices": choices, **extra})


class _Stream:
    """One choice of a streamed response."""

    def __init__(self, completions: Completions, index: int, generation: Generation) -> None:
        self._completions = completions
        self._index = index
        self._generation = generation
        self._text = completions.detokenizer(generation)
        self._closed = False

    def opening(self) -> dict[str, Any]:
        return self._delta({"role": "assistant", "content": ""}, [])

    def progress(self) -> list[dict[str, Any]]:
        """The chunks for what is new since the last call. Raises `ApiError`."""
        done = self._generation.done
        tokens = self._generation.new_tokens()
        if self._closed or not (tokens or done):
            return []
        if not done:
            new = self._text.push(self._generation.ids[: self._generation.sent])
            return [self._delta({"content": new} if new else {}, tokens)]
        self._closed = True
        message = self._completions.message(self._generation)
        rest: dict[str, Any] = {}
        if content := message.text[self._text.shown :]:
            rest["content"] = content
        if message.tool_calls:
            calls = msgspec.to_builtins(message.tool_calls)
            rest["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
        end = finish_reason(self._generation, message)
        return [self._delta(rest, tokens), self._delta({}, [], end)]

    def _delta(
        self, delta: dict[str, Any], tokens: Sequence[SampledToken], finish: str | None = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": self._index, "delta": delta, "finish_reason": finish, "logprobs": None}
        if tokens and self._generation.request.top_logprobs is not None:
            choice["logprobs"] = _logprobs(self._completions, tokens)
        if tokens and self._generation.request.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice


def usage(handle: RequestHandle) -> dict[str, int]:
    """Tokens as the completion APIs count them."""
    read, written = handle.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def finish_reason(generation: Generation, message: Message) -> str | None:
    """Why a generation ended, in the words of the API."""
    return "tool_calls" if message.tool_calls and generation.finish == "stop" else generation.finish


def _logprobs(completions: Completions, tokens: Sequence[SampledToken]) -> dict[str, Any]:
    def shown(id: int, logprob: float) -> dict[str, Any]:
        text = completions.token_text(id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        {**shown(token.id, token.logprob), "top_logprobs": [shown(id, logprob) for id, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}
