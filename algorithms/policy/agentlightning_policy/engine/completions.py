"""One request, from its prompt to the tokens of its answers; the APIs (`api_chat` and its like) give it its shape."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from agentlightning_policy.config import EngineConfig
from agentlightning_policy.engine.chat import Chat, assemble
from agentlightning_policy.engine.protocol import ApiError, Asked, Message
from agentlightning_policy.engine.sampling import Drawn, Sampling, derive_seed
from agentlightning_policy.engine.scheduler import EngineClosedError, Generation, Scheduler
from agentlightning_policy.engine.sessions import Prompt, Sessions
from agentlightning_policy.engine.stream import Unfolding, cut_at_stop


@dataclass
class Answer:
    """One answer in the making, to one prompt."""

    asked: Asked
    prompt: Prompt
    generation: Generation
    given: int = 0
    """Tokens that were given out already, of a stream."""

    @property
    def ids(self) -> list[int]:
        """The tokens drawn so far."""
        return [token.id for token in self.generation.tokens]

    def news(self) -> Sequence[Drawn]:
        """The tokens drawn since the last call. Raises `ApiError` where the engine failed."""
        _raise(self.generation.error)
        tokens = self.generation.tokens[self.given :]
        self.given += len(tokens)
        return tokens


@dataclass
class Work:
    """A request under way: ``asked.n`` answers to each of its prompts, in order."""

    asked: Asked
    answers: list[Answer]
    news: asyncio.Event
    key: str
    created: int

    @property
    def done(self) -> bool:
        """Whether all of it is there."""
        return all(answer.generation.done for answer in self.answers)

    @property
    def version(self) -> int | None:
        """The policy version that wrote the first token; the oldest of them where answers differ."""
        versions = [answer.generation.version for answer in self.answers if answer.generation.version >= 0]
        return min(versions, default=None)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompts, and tokens written."""
        prompts = {id(answer.prompt): len(answer.prompt.ids) for answer in self.answers}
        return sum(prompts.values()), sum(len(answer.generation.tokens) for answer in self.answers)

    async def finish(self) -> None:
        """Waits for all of it. Raises `ApiError`."""
        async for _ in self.steps():
            pass
        for answer in self.answers:
            _raise(answer.generation.error)

    async def steps(self) -> AsyncIterator[None]:
        """Yields whenever there may be something new; the last time when all of it is there."""
        while True:
            done = self.done
            yield
            if done:
                return
            await self.news.wait()
            self.news.clear()


class Completions:
    """Answers requests. For use from one event loop."""

    def __init__(self, scheduler: Scheduler, chat: Chat, config: EngineConfig, max_context: int) -> None:
        self.model = config.name
        self._scheduler = scheduler
        self._chat = chat
        self._config = config
        self._max_context = max_context
        self._sessions = Sessions(chat)
        self._count = 0

    def chat(self, asked: Asked, messages: Sequence[Message], rollout: str | None) -> Work:
        """Hands a chat's next turn to the scheduler. Raises `ApiError`."""
        prompt = self._sessions.prompt(rollout, messages, asked.tools)
        return self._begin(asked, [prompt])

    def text(self, asked: Asked, prompts: Sequence[str | Sequence[int]], rollout: str | None) -> Work:
        """Hands prompts, as text or as token ids, to the scheduler. Raises `ApiError`."""
        ids = [self._chat.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
        return self._begin(asked, [self._sessions.plain(rollout, np.array(each, np.int32)) for each in ids])

    def _begin(self, asked: Asked, prompts: Sequence[Prompt]) -> Work:
        for prompt in prompts:
            self._check_room(prompt)
        news, loop = asyncio.Event(), asyncio.get_running_loop()
        self._count += 1
        answers = [
            Answer(
                asked,
                prompt,
                Generation(
                    prompt.ids,
                    self._sampling(asked, prompt, choice),
                    lambda: loop.call_soon_threadsafe(news.set),
                    streams=asked.stream,
                ),
            )
            for prompt in prompts
            for choice in range(asked.n)
        ]
        try:
            self._scheduler.submit(*(answer.generation for answer in answers))
        except EngineClosedError as error:
            raise _unavailable(error) from error
        stats = self._scheduler.stats
        stats.continued += sum(prompt.continued for prompt in prompts)
        stats.rendered += sum(not prompt.continued for prompt in prompts)
        return Work(asked, answers, news, secrets.token_hex(12), int(time.time()))

    def cancel(self, work: Work) -> None:
        """Nobody waits any more."""
        for answer in work.answers:
            if not answer.generation.done:
                self._scheduler.cancel(answer.generation)

    def said(self, answer: Answer) -> Message:
        """The message of a complete answer, kept for the rollout's next call."""
        message = assemble(self.written(answer), answer.asked.tools if answer.asked.calls_tools else None)
        self._sessions.answered(answer.prompt, message, answer.ids)
        return message

    def written(self, answer: Answer) -> str:
        """The text of a complete answer."""
        return cut_at_stop(self._chat.decode(answer.ids), answer.asked.stops)

    def token_text(self, id: int) -> str:
        """One token as text, special or not."""
        return self._chat.token_text(id)

    def unfolding(self, asked: Asked) -> Unfolding:
        """The growing text of one streamed answer."""
        return Unfolding(self._chat.decode, asked.stops, tools=bool(asked.tools) and asked.calls_tools)

    def _check_room(self, prompt: Prompt) -> None:
        if len(prompt.ids) >= self._max_context:
            raise ApiError(
                400,
                f"the prompt takes {len(prompt.ids)} tokens, and the context holds {self._max_context}",
                code="context_length_exceeded",
                param="messages",
            )
        if not len(prompt.ids):
            raise ApiError(400, "prompt: expected at least one token", param="prompt")

    def _sampling(self, asked: Asked, prompt: Prompt, choice: int) -> Sampling:
        seed = asked.seed
        if seed is None:
            call = prompt.repeat if prompt.rollout is not None else self._count
            seed = derive_seed(self._config.seed, prompt.rollout or "", call, prompt.ids.tobytes())
        room = self._max_context - len(prompt.ids)
        return Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=seed if choice == 0 else derive_seed(seed, choice),
            max_tokens=min(asked.max_tokens or self._config.max_tokens, room),
            stop=asked.stops,
            top_logprobs=asked.top_logprobs or 0,
        )


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name is not None else b""
    return head + b"data: " + msgspec.json.encode(body) + b"\n\n"


def _raise(error: Exception | None) -> None:
    if isinstance(error, EngineClosedError):
        raise _unavailable(error) from error
    if error is not None:
        raise ApiError(500, f"the engine failed: {error}", type="server_error") from error


def _unavailable(error: Exception) -> ApiError:
    return ApiError(503, str(error), type="server_error", code="engine_unavailable")
