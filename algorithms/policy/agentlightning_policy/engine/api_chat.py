"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec

from agentlightning_policy.engine.completions import Answer, Completions, Work, event
from agentlightning_policy.engine.protocol import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    ApiError,
    Asked,
    Message,
    Sampled,
    StreamOptions,
    sampled,
)
from agentlightning_policy.engine.requests import check_format, check_messages, check_tools, decode, stop_strings
from agentlightning_policy.engine.sampling import Drawn
from agentlightning_policy.engine.scheduler import Generation
from agentlightning_policy.engine.sessions import Prompt


class ChatRequest(Sampled, kw_only=True):
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

    def asked(self) -> Asked:
        """Raises `ApiError` for what the engine does not do."""
        unconstrained = bool(self.unconstrained)
        check_messages(self.messages)
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs")
        check_tools(self.tools, self.tool_choice, unconstrained=unconstrained)
        check_format(self.response_format, "response_format", unconstrained=unconstrained)
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return Asked(
            **sampled(self),
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

    def read(self, body: bytes, rollout: str | None) -> tuple[ChatRequest, Asked, list[Prompt]]:
        """The request and its prompt. Raises `ApiError`."""
        request = decode(body, ChatRequest, self._completions.model)
        asked = request.asked()
        return request, asked, [self._completions.chat_prompt(asked, request.messages, rollout)]

    def whole(self, request: ChatRequest, work: Work) -> dict[str, Any]:
        """The response, once it is complete. Safe to call from any thread."""
        choices = [self._choice(place, answer) for place, answer in enumerate(work.answers)]
        body = {**self._head(work, "chat.completion"), "choices": choices, "usage": usage(work)}
        if work.asked.return_token_ids:
            body["prompt_token_ids"] = work.answers[0].prompt.ids.tolist()
        return body

    async def chunks(self, request: ChatRequest, work: Work) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first chunk is the last event."""
        first: dict[str, Any] = {}
        if work.asked.return_token_ids:
            first = {"prompt_token_ids": work.answers[0].prompt.ids.tolist()}
        streams = [_Stream(self._completions, place, answer) for place, answer in enumerate(work.answers)]
        for stream in streams:
            yield self._event(work, [stream.opening()], **first)
            first = {}
        try:
            async for _ in work.steps():
                for stream in streams:
                    for choice in stream.progress():
                        yield self._event(work, [choice])
        except ApiError as error:
            yield event(error.body)
            return
        if request.stream_options is not None and request.stream_options.include_usage:
            yield self._event(work, [], usage=usage(work))
        yield b"data: [DONE]\n\n"

    def _choice(self, place: int, answer: Answer) -> dict[str, Any]:
        message = self._completions.said(answer)
        shown: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.tool_calls:
            shown["tool_calls"] = msgspec.to_builtins(message.tool_calls)
        choice: dict[str, Any] = {
            "index": place,
            "message": shown,
            "finish_reason": finish_reason(answer.generation, message),
            "logprobs": None,
        }
        if answer.asked.top_logprobs is not None:
            choice["logprobs"] = _logprobs(self._completions, answer.generation.tokens)
        if answer.asked.return_token_ids:
            choice["token_ids"] = answer.ids
        return choice

    def _head(self, work: Work, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{work.key}",
            "object": kind,
            "created": work.created,
            "model": self._completions.model,
            "policy": self._completions.model,
            "policy_version": work.version,
        }

    def _event(self, work: Work, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        return event({**self._head(work, "chat.completion.chunk"), "choices": choices, **extra})


class _Stream:
    """One choice of a streamed response."""

    def __init__(self, completions: Completions, place: int, answer: Answer) -> None:
        self._completions = completions
        self._place = place
        self._answer = answer
        self._text = completions.unfolding(answer)
        self._closed = False

    def opening(self) -> dict[str, Any]:
        return self._delta({"role": "assistant", "content": ""}, [])

    def progress(self) -> list[dict[str, Any]]:
        """The chunks for what is new since the last call. Raises `ApiError`."""
        done = self._answer.generation.done
        tokens = self._answer.news()
        if self._closed or not (tokens or done):
            return []
        if not done:
            new = self._text.more(self._answer.ids[: self._answer.given])
            return [self._delta({"content": new} if new else {}, tokens)]
        self._closed = True
        message = self._completions.said(self._answer)
        rest: dict[str, Any] = {}
        if content := message.text[self._text.shown :]:
            rest["content"] = content
        if message.tool_calls:
            calls = msgspec.to_builtins(message.tool_calls)
            rest["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        end = finish_reason(self._answer.generation, message)
        return [self._delta(rest, tokens), self._delta({}, [], end)]

    def _delta(self, delta: dict[str, Any], tokens: Sequence[Drawn], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": self._place, "delta": delta, "finish_reason": finish, "logprobs": None}
        if tokens and self._answer.asked.top_logprobs is not None:
            choice["logprobs"] = _logprobs(self._completions, tokens)
        if tokens and self._answer.asked.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice


def usage(work: Work) -> dict[str, int]:
    """Tokens as the completion APIs count them."""
    read, written = work.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def finish_reason(generation: Generation, message: Message) -> str | None:
    """Why an answer ended, in the words of the API."""
    return "tool_calls" if message.tool_calls and generation.finish == "stop" else generation.finish


def _logprobs(completions: Completions, tokens: Sequence[Drawn]) -> dict[str, Any]:
    def shown(id: int, logprob: float) -> dict[str, Any]:
        text = completions.token_text(id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        {**shown(token.id, token.logprob), "top_logprobs": [shown(id, logprob) for id, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}
