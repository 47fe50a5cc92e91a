"""One request, from its prompt to the tokens of its answers; the APIs (`api_chat` and its like) give it its shape."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from agentlightning_policy.config import EngineConfig
from agentlightning_policy.engine.chat import Chat
from agentlightning_policy.engine.protocol import ApiError, Asked, Message
from agentlightning_policy.engine.sampling import Drawn, Sampling, derive_seed
from agentlightning_policy.engine.scheduler import EngineClosedError, Generation, Scheduler
from agentlightning_policy.engine.sessions import Prompt, Sessions
from agentlightning_policy.engine.stream import Unfolding, cut_at_stop
from agentlightning_policy.engine.tool_calls import assemble

Ids = TypeVar("Ids", bound=Collection[int])


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

    @property
    def size(self) -> int:
        """Tokens that the response shows: what was written, and what could have been beside it."""
        return self.tokens[1] * (1 + (self.asked.top_logprobs or 0))

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
    """Answers requests. For use from one event loop, but for what makes prompts."""

    def __init__(
        self, scheduler: Scheduler, chat: Chat, config: EngineConfig, *, max_context: int, vocabulary: int
    ) -> None:
        self.model = config.name
        self._scheduler = scheduler
        self._chat = chat
        self._config = config
        self.max_context = max_context
        self._vocabulary = vocabulary
        self._sessions = Sessions(chat, max_context)
        self._count = 0

    def chat_prompt(self, asked: Asked, messages: Sequence[Message], rollout: str | None) -> Prompt:
        """The tokens of a chat's next turn. Safe to call from several threads. Raises `ApiError`."""
        variables = self._chat.known_variables(asked.template, unconstrained=asked.unconstrained)
        return self._sessions.prompt(rollout, messages, asked.tools, variables)

    def text_prompts(
        self, prompts: Sequence[str | Sequence[int]], rollout: str | None, *, special: bool
    ) -> list[Prompt]:
        """The tokens of prompts that are text or token ids; with ``special``, text gets the tokens that the tokenizer
        adds (a BOS, say). Safe to call from several threads. Raises `ApiError`."""
        return [
            self._sessions.text(rollout, prompt, special=special)
            if isinstance(prompt, str)
            else self._sessions.plain(rollout, self._check_ids(prompt, "prompt"))
            for prompt in prompts
        ]

    def begin(self, asked: Asked, prompts: Sequence[Prompt]) -> Work:
        """Hands prompts to the scheduler. Raises `ApiError`."""
        for prompt in prompts:
            self._check_room(prompt)
        self._check_ids(asked.stop_ids, "stop_token_ids")
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
        asked = answer.asked
        message = assemble(
            self.written(answer),
            asked.tools if asked.calls_tools else None,
            thought=self._thought(answer),
            parallel=asked.parallel_calls,
        )
        self._sessions.answered(answer.prompt, message, answer.ids)
        return message

    def written(self, answer: Answer) -> str:
        """The text of a complete answer."""
        return cut_at_stop(self._chat.decode(answer.ids), answer.asked.stops)

    def token_text(self, id: int) -> str:
        """One token as text, special or not."""
        return self._chat.token_text(id)

    def unfolding(self, answer: Answer) -> Unfolding:
        """The growing text of one streamed answer."""
        asked = answer.asked
        tools = bool(asked.tools) and asked.calls_tools
        return Unfolding(self._chat.decode_settled, asked.stops, tools=tools, thought=self._thought(answer))

    def _thought(self, answer: Answer) -> str | None:
        return self._chat.open_thought(answer.prompt.ids) if answer.asked.tools else None

    def _check_ids(self, ids: Ids, field: str) -> Ids:
        """Raises `ApiError` for token ids that the model does not have: in a batch they would fail all of it."""
        odd = next((id for id in ids if not 0 <= id < self._vocabulary), None)
        if odd is not None:
            raise ApiError(
                400, f"{field}: {odd} is no token of the model, which has 0 to {self._vocabulary - 1}", param=field
            )
        return ids

    def _check_room(self, prompt: Prompt) -> None:
        if len(prompt.ids) >= self.max_context:
            raise ApiError(
                400,
                f"the prompt takes {len(prompt.ids)} tokens, and the context holds {self.max_context}",
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
        room = self.max_context - len(prompt.ids)
        return Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            seed=seed if choice == 0 else derive_seed(seed, choice),
            max_tokens=min(asked.max_tokens or self._config.max_tokens, room),
            stop=asked.stops,
            stop_ids=asked.stop_ids,
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
