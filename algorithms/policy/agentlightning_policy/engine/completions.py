"""One chat completion: from a request to tokens, and from tokens to a response or a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from agentlightning_policy.config import EngineConfig
from agentlightning_policy.engine.chat import Chat, assemble
from agentlightning_policy.engine.protocol import ApiError, ChatRequest, Message
from agentlightning_policy.engine.sampling import Drawn, Sampling, derive_seed
from agentlightning_policy.engine.scheduler import EngineClosedError, Generation, Scheduler
from agentlightning_policy.engine.sessions import Prompt, Sessions
from agentlightning_policy.engine.stream import Unfolding, cut_at_stop


@dataclass
class Work:
    """A request under way."""

    request: ChatRequest
    prompt: Prompt
    generations: list[Generation]
    news: asyncio.Event
    id: str
    created: int

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """The tools that the model may call."""
        return None if self.request.tool_choice == "none" else self.request.tools


class Completions:
    """Answers chat requests. For use from one event loop."""

    def __init__(self, scheduler: Scheduler, chat: Chat, config: EngineConfig, max_context: int) -> None:
        self._scheduler = scheduler
        self._chat = chat
        self._config = config
        self._max_context = max_context
        self._sessions = Sessions(chat)
        self._count = 0

    def begin(self, request: ChatRequest, rollout: str | None) -> Work:
        """Hands a request to the scheduler. Raises `ApiError`."""
        prompt = self._sessions.prompt(rollout, request.messages, request.tools)
        room = self._max_context - len(prompt.ids)
        if room < 1:
            raise ApiError(
                400,
                f"the messages take {len(prompt.ids)} tokens, and the context holds {self._max_context}",
                code="context_length_exceeded",
                param="messages",
            )
        if prompt.continued:
            self._scheduler.stats.continued += 1
        else:
            self._scheduler.stats.rendered += 1
        news, loop = asyncio.Event(), asyncio.get_running_loop()
        self._count += 1
        generations = [
            Generation(
                prompt.ids,
                self._sampling(request, prompt, room, choice),
                lambda: loop.call_soon_threadsafe(news.set),
                streams=bool(request.stream),
            )
            for choice in range(request.n or 1)
        ]
        try:
            self._scheduler.submit(*generations)
        except EngineClosedError as error:
            raise _unavailable(error) from error
        return Work(request, prompt, generations, news, f"chatcmpl-{secrets.token_hex(12)}", int(time.time()))

    def cancel(self, work: Work) -> None:
        """Nobody waits any more."""
        for generation in work.generations:
            if not generation.done:
                self._scheduler.cancel(generation)

    async def whole(self, work: Work) -> bytes:
        """The response, when it is complete. Raises `ApiError`."""
        while not all(generation.done for generation in work.generations):
            await work.news.wait()
            work.news.clear()
        for generation in work.generations:
            _raise(generation.error)
        choices = [self._choice(work, place, generation) for place, generation in enumerate(work.generations)]
        body = {**self._head(work, "chat.completion"), "choices": choices, "usage": self._usage(work)}
        if work.request.return_token_ids:
            body["prompt_token_ids"] = work.prompt.ids.tolist()
        return msgspec.json.encode(body)

    async def chunks(self, work: Work) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first chunk is the last event."""
        request = work.request
        first: dict[str, Any] = {"prompt_token_ids": work.prompt.ids.tolist()} if request.return_token_ids else {}
        streams = [_Stream(self, work, place, generation) for place, generation in enumerate(work.generations)]
        for stream in streams:
            yield self._event(work, [stream.opening()], **first)
            first = {}
        try:
            while not all(stream.closed for stream in streams):
                await work.news.wait()
                work.news.clear()
                for stream in streams:
                    for choice in stream.progress():
                        yield self._event(work, [choice])
        except ApiError as error:
            yield _data(error.body)
            return
        if request.stream_options is not None and request.stream_options.include_usage:
            yield self._event(work, [], usage=self._usage(work))
        yield b"data: [DONE]\n\n"

    def finished(self, work: Work, generation: Generation) -> Message:
        """The message of a complete answer, kept for the rollout's next call."""
        ids = [token.id for token in generation.tokens]
        text = cut_at_stop(self._chat.decode(ids), generation.sampling.stop)
        message = assemble(text, work.tools)
        self._sessions.answered(work.prompt, message, ids)
        return message

    def logprobs(self, tokens: Sequence[Drawn]) -> dict[str, Any]:
        """The ``logprobs`` of a choice."""
        return {
            "content": [
                {
                    **self._token(token.id, token.logprob),
                    "top_logprobs": [self._token(id, logprob) for id, logprob in token.top],
                }
                for token in tokens
            ],
            "refusal": None,
        }

    def unfolding(self, work: Work) -> Unfolding:
        """The growing text of one streamed choice."""
        return Unfolding(self._chat.decode, work.request.stops, tools=bool(work.tools))

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        text = self._chat.token_text(id)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def _sampling(self, request: ChatRequest, prompt: Prompt, room: int, choice: int) -> Sampling:
        asked = request.max_completion_tokens or request.max_tokens or self._config.max_tokens
        seed = request.seed
        if seed is None:
            call = prompt.repeat if prompt.rollout is not None else self._count
            seed = derive_seed(self._config.seed, prompt.rollout or "", call, prompt.ids.tobytes())
        return Sampling(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=request.top_p or 1.0,
            seed=seed if choice == 0 else derive_seed(seed, choice),
            max_tokens=min(asked, room),
            stop=request.stops,
            top_logprobs=request.top_logprobs or 0,
        )

    def _choice(self, work: Work, place: int, generation: Generation) -> dict[str, Any]:
        message = self.finished(work, generation)
        shown: dict[str, Any] = {"role": "assistant", "content": message.content}
        if message.tool_calls:
            shown["tool_calls"] = msgspec.to_builtins(message.tool_calls)
        choice: dict[str, Any] = {
            "index": place,
            "message": shown,
            "finish_reason": finish_reason(generation, message),
            "logprobs": self.logprobs(generation.tokens) if work.request.logprobs else None,
        }
        if work.request.return_token_ids:
            choice["token_ids"] = [token.id for token in generation.tokens]
        return choice

    def _head(self, work: Work, kind: str) -> dict[str, Any]:
        versions = [generation.version for generation in work.generations if generation.version >= 0]
        return {
            "id": work.id,
            "object": kind,
            "created": work.created,
            "model": self._config.name,
            "policy": self._config.name,
            "policy_version": min(versions, default=None),
        }

    def _usage(self, work: Work) -> dict[str, int]:
        written = sum(len(generation.tokens) for generation in work.generations)
        prompt = len(work.prompt.ids)
        return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

    def _event(self, work: Work, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        return _data({**self._head(work, "chat.completion.chunk"), "choices": choices, **extra})


class _Stream:
    """One choice of a streamed response."""

    def __init__(self, completions: Completions, work: Work, place: int, generation: Generation) -> None:
        self._completions = completions
        self._work = work
        self._place = place
        self._generation = generation
        self._text = completions.unfolding(work)
        self._given = 0
        self.closed = False

    def opening(self) -> dict[str, Any]:
        return self._delta({"role": "assistant", "content": ""}, [])

    def progress(self) -> list[dict[str, Any]]:
        """The chunks for what is new since the last call. Raises `ApiError`."""
        if self.closed:
            return []
        generation = self._generation
        _raise(generation.error)
        done = generation.done
        tokens = generation.tokens[self._given :]
        if not tokens:
            return []
        self._given += len(tokens)
        if not done:
            new = self._text.more([token.id for token in generation.tokens[: self._given]])
            return [self._delta({"content": new} if new else {}, tokens)]
        self.closed = True
        message = self._completions.finished(self._work, generation)
        rest: dict[str, Any] = {}
        if content := message.text[self._text.shown :]:
            rest["content"] = content
        if message.tool_calls:
            calls = msgspec.to_builtins(message.tool_calls)
            rest["tool_calls"] = [{"index": place, **call} for place, call in enumerate(calls)]
        return [self._delta(rest, tokens), self._delta({}, [], finish_reason(generation, message))]

    def _delta(self, delta: dict[str, Any], tokens: Sequence[Drawn], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": self._place, "delta": delta, "finish_reason": finish, "logprobs": None}
        if tokens and self._work.request.logprobs:
            choice["logprobs"] = self._completions.logprobs(tokens)
        if tokens and self._work.request.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice


def finish_reason(generation: Generation, message: Message) -> str | None:
    """Why an answer ended, in the words of the API."""
    return "tool_calls" if message.tool_calls and generation.finish == "stop" else generation.finish


def _raise(error: Exception | None) -> None:
    if isinstance(error, EngineClosedError):
        raise _unavailable(error) from error
    if error is not None:
        raise ApiError(500, f"the engine failed: {error}", type="server_error") from error


def _unavailable(error: Exception) -> ApiError:
    return ApiError(503, str(error), type="server_error", code="engine_unavailable")


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
