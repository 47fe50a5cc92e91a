"""One request, from its prompt to the tokens of its answers; the APIs (`api_chat` and its like) give it its shape."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from agentlightning.sampler import HoldsConnections, SampledToken, Sampler, SamplerUnavailableError, SamplingParams
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.config import GatewayConfig
from agentlightning_gateway.protocol import ApiError, GenerationRequest, Message, Replay
from agentlightning_gateway.sessions import Prompt, Sessions
from agentlightning_gateway.stream import IncrementalDetokenizer, cut_at_stop
from agentlightning_gateway.tool_calls import assemble

logger = logging.getLogger(__name__)

Ids = TypeVar("Ids", bound=Collection[int])


@dataclass
class GatewayStats:
    """Requests so far, and how many of their prompts continued earlier ones or were rendered anew."""

    requests: int = 0
    continued: int = 0
    rendered: int = 0


@dataclass(eq=False)
class Generation:
    """One answer to one prompt, growing as the sampler writes it."""

    request: GenerationRequest
    prompt: Prompt
    params: SamplingParams
    tokens: list[SampledToken] = field(default_factory=list)
    finish: Literal["stop", "length"] | None = None
    error: ApiError | None = None
    sent: int = 0
    """Tokens that a stream has sent already."""

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.finish is not None or self.error is not None

    @property
    def ids(self) -> list[int]:
        """The tokens sampled so far."""
        return [token.id for token in self.tokens]

    def new_tokens(self) -> Sequence[SampledToken]:
        """The tokens sampled since the last call. Raises `ApiError` where the sampler failed."""
        if self.error is not None:
            raise self.error
        tokens = self.tokens[self.sent :]
        self.sent += len(tokens)
        return tokens


@dataclass(eq=False)
class RequestHandle:
    """A request under way: ``request.n`` generations for each of its prompts, in order."""

    request: GenerationRequest
    generations: list[Generation]
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    key: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def version(self) -> int | None:
        """The policy version that wrote the first token; the oldest of them where generations differ."""
        first = [generation.tokens[0].policy_version for generation in self.generations if generation.tokens]
        return min((version for version in first if version is not None), default=None)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompts, and tokens sampled."""
        prompts = {id(generation.prompt): len(generation.prompt.ids) for generation in self.generations}
        return sum(prompts.values()), sum(len(generation.tokens) for generation in self.generations)

    @property
    def size(self) -> int:
        """Tokens that the response shows: what was sampled, and what could have been beside it."""
        return self.tokens[1] * (1 + (self.request.top_logprobs or 0))

    async def begun(self) -> None:
        """Waits for the first token. Raises `ApiError` where something has failed by then."""
        async for _ in self.steps():
            if any(generation.tokens or generation.done for generation in self.generations):
                break
        self._raise_failure()

    async def finish(self) -> None:
        """Waits for all of it. Raises `ApiError`."""
        await asyncio.wait(self.tasks)
        self._raise_failure()

    async def steps(self) -> AsyncIterator[None]:
        """Yields whenever there may be something new; the last time when all of it is there."""
        while True:
            done = all(generation.done for generation in self.generations)
            yield
            if done:
                return
            await self.progress.wait()
            self.progress.clear()

    def _raise_failure(self) -> None:
        for generation in self.generations:
            if generation.error is not None:
                raise generation.error

    def cancel(self) -> None:
        """Nobody waits any more."""
        for task in self.tasks:
            task.cancel()


class Completions:
    """Answers requests. For use from one event loop, but for what makes prompts."""

    def __init__(self, sampler: Sampler, chat: Chat, config: GatewayConfig) -> None:
        self.info = sampler.info
        self.stats = GatewayStats()
        self._sampler = sampler
        self._chat = chat
        self._config = config
        self._sessions = Sessions(chat, self.info.context_length)

    def chat_prompt(self, request: GenerationRequest, messages: Sequence[Message], rollout: str | None) -> Prompt:
        """The tokens of a chat's next turn. Safe to call from several threads. Raises `ApiError`."""
        variables = self._chat.known_variables(request.template, unconstrained=request.unconstrained)
        return self._sessions.prompt(rollout, messages, request.tools, variables)

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

    def begin(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> RequestHandle:
        """Hands prompts to the sampler. Raises `ApiError`."""
        for prompt in prompts:
            self._check_room(prompt)
        self._check_ids(request.stop_ids, "stop_token_ids")
        self._check_logprobs(request)
        self._check_replay(request, prompts)
        self.stats.requests += 1
        self.stats.continued += sum(prompt.continued for prompt in prompts)
        self.stats.rendered += sum(not prompt.continued for prompt in prompts)
        generations = [
            Generation(request, prompt, self._params(request, prompt, choice))
            for prompt in prompts
            for choice in range(request.n)
        ]
        handle = RequestHandle(request, generations)
        handle.tasks = [asyncio.create_task(self._generate(generation, handle)) for generation in generations]
        return handle

    async def aclose(self) -> None:
        """Nothing will be asked any more, in this event loop."""
        if isinstance(self._sampler, HoldsConnections):
            await self._sampler.aclose()

    def identity(self, handle: RequestHandle) -> dict[str, Any]:
        """Who wrote a response, and what its log-probabilities are of: fields of every API's responses."""
        written_by = {"model": self.info.name, "policy": self.info.name, "policy_version": handle.version}
        return written_by if handle.request.top_logprobs is None else {**written_by, "logprobs_mode": "tempered"}

    def message(self, generation: Generation) -> Message:
        """The message of a complete generation, kept for the rollout's next call."""
        request = generation.request
        message = assemble(
            self.text(generation),
            request.tools if request.calls_tools else None,
            format=self._chat.tool_format,
            thought=self._thought(generation),
            parallel=request.parallel_calls,
        )
        self._sessions.answered(generation.prompt, message, generation.ids)
        return message

    def text(self, generation: Generation) -> str:
        """The text of a complete generation."""
        return cut_at_stop(self._chat.decode(generation.ids), generation.request.stops)

    def token_text(self, id: int) -> str:
        """One token as text, special or not."""
        return self._chat.token_text(id)

    def detokenizer(self, generation: Generation) -> IncrementalDetokenizer:
        """The growing text of one streamed generation."""
        request = generation.request
        tools = self._chat.tool_format if request.tools and request.calls_tools else None
        return IncrementalDetokenizer(
            self._chat.decode_settled, request.stops, tools=tools, thought=self._thought(generation)
        )

    async def _generate(self, generation: Generation, handle: RequestHandle) -> None:
        try:
            async with contextlib.aclosing(self._tokens(generation)) as tokens:
                async for token in tokens:
                    generation.tokens.append(token)
                    generation.finish = self._finish(generation)
                    handle.progress.set()
                    if generation.finish is not None:
                        break
            generation.finish = generation.finish or "stop"  # the sampler ended by a rule of its own
        except SamplerUnavailableError as error:
            generation.error = ApiError(503, str(error), type="server_error", code="engine_unavailable")
        except Exception as error:  # noqa: BLE001 - whatever the sampler raises is this request's failure, and told so
            logger.warning("the sampler failed, and the request with it: %r", error)
            generation.error = ApiError(500, f"the sampler failed: {error}", type="server_error")
        finally:
            handle.progress.set()

    def _tokens(self, generation: Generation) -> AsyncGenerator[SampledToken, None]:
        replay = generation.request.replay
        if replay is None:
            return self._sampler.generate(generation.prompt.ids, generation.params)
        return _recorded(replay)

    def _finish(self, generation: Generation) -> Literal["stop", "length"] | None:
        params, stops = generation.params, generation.request.stops
        if generation.tokens[-1].id in params.stop_token_ids:
            return "stop"
        if stops:
            # a character is at most four tokens, so this many hold the longest stop string
            tail = generation.tokens[-4 * max(map(len, stops)) - 4 :]
            text = self._chat.decode([token.id for token in tail])
            if any(stop in text for stop in stops):
                return "stop"
        return "length" if len(generation.tokens) >= params.max_tokens else None

    def _thought(self, generation: Generation) -> str | None:
        return self._chat.open_thought(generation.prompt.ids.tolist()) if generation.request.tools else None

    def _check_ids(self, ids: Ids, field: str) -> Ids:
        """Raises `ApiError` for token ids that the model does not have: in a batch they would fail all of it."""
        odd = next((id for id in ids if not 0 <= id < self.info.vocabulary), None)
        if odd is not None:
            raise ApiError(
                400, f"{field}: {odd} is no token of the model, which has 0 to {self.info.vocabulary - 1}", param=field
            )
        return ids

    def _check_room(self, prompt: Prompt) -> None:
        if len(prompt.ids) >= self.info.context_length:
            raise ApiError(
                400,
                f"the prompt takes {len(prompt.ids)} tokens, and the context holds {self.info.context_length}",
                code="context_length_exceeded",
                param="messages",
            )
        if not len(prompt.ids):
            raise ApiError(400, "prompt: expected at least one token", param="prompt")

    def _check_logprobs(self, request: GenerationRequest) -> None:
        """Raises `ApiError` (501) for log-probabilities that the sampler cannot tell: raw ones are those of the
        tempered distribution at temperature 1 (and 0, which counts as 1), processed ones where nothing is cut; neither
        can be turned into others."""
        if request.top_logprobs is None:
            return
        if self.info.logprobs == "raw" and request.temperature not in (0.0, 1.0):
            given = f"before temperature, which are not the ones of temperature {request.temperature:g}"
            other = "ask for temperature 1 or 0"
        elif self.info.logprobs == "processed" and (request.top_k, request.top_p, request.min_p) != (0, 1.0, 0.0):
            given, other = "of what top_k, top_p and min_p leave", "leave these out"
        else:
            return
        raise ApiError(
            501,
            f"logprobs: the sampler of {self.info.name} gives those {given}; {other}, or ask for no logprobs",
            param="logprobs",
            type="server_error",
        )

    def _check_replay(self, request: GenerationRequest, prompts: Sequence[Prompt]) -> None:
        """Raises `ApiError` where the answer to be given again was one to another prompt."""
        replay = request.replay
        if replay is None:
            return
        self._check_ids(replay.token_ids, "replay.token_ids")
        if len(replay.logprobs) != len(replay.token_ids):
            raise ApiError(400, "replay.logprobs: expected one for each of its token_ids", param="replay.logprobs")
        if request.n != 1 or len(prompts) != 1:
            raise ApiError(400, "replay: expected one prompt and n = 1", param="replay")
        if prompts[0].ids.tolist() != replay.prompt_token_ids:
            raise ApiError(400, "replay: the prompt of this request has other tokens", param="replay", code="diverged")

    def _params(self, request: GenerationRequest, prompt: Prompt, choice: int) -> SamplingParams:
        seed = request.seed
        if seed is None:
            call = prompt.repeat if prompt.rollout is not None else self.stats.requests
            seed = derive_seed(self._config.seed, prompt.rollout or "", call, prompt.ids.tobytes())
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            seed=seed if choice == 0 else derive_seed(seed, choice),
            max_tokens=min(request.max_tokens or self._config.max_tokens, self.info.context_length - len(prompt.ids)),
            stop_token_ids=request.stop_ids | self._chat.end_ids,
            top_logprobs=request.top_logprobs or 0,
            stream=request.stream or bool(request.stops),
            rollout=prompt.rollout,
        )


async def _recorded(replay: Replay) -> AsyncGenerator[SampledToken, None]:
    for id, logprob in zip(replay.token_ids, replay.logprobs, strict=True):
        yield SampledToken(id=id, logprob=logprob, policy_version=replay.policy_version)


def derive_seed(*parts: int | str | bytes) -> int:
    """A seed that depends on all the parts."""
    text = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return zlib.crc32(text) << 32 | zlib.adler32(text)


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name is not None else b""
    return head + b"data: " + msgspec.json.encode(body) + b"\n\n"
