"""A language model that the library itself asks something: a judge, or what reflects on a prompt. Any OpenAI-compatible
endpoint; what is asked here belongs to no rollout, and is counted."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import msgspec
import openai

from agentlightning.config import NonNegative, NonNegativeInt, PositiveInt, Seconds
from agentlightning.errors import AgentLightningError, ConfigError
from agentlightning.recording import outside
from agentlightning.records import ModelChoice, Usage
from agentlightning.redaction import redact, remember

BACKOFF_SECONDS = 10.0
"""At most, between two attempts of a request."""
MAX_QUOTED = 4000
"""Characters of an unusable reply that a model is shown again."""
_NO_KEY = "none"
"""An endpoint of one's own needs none, and a client cannot be made without."""


class ChatModelError(AgentLightningError):
    """A model that the library asked gave no answer; the message says which, where, and why."""


class UnusableReplyError(Exception):
    """A reply in which nothing can be used; the message says why, in words for whoever wrote it."""


class ChatModelConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A model, where it is served, how it is asked, and what it costs in dollars per million tokens.

    Without ``base_url`` it is asked for where the ``openai`` client looks (``OPENAI_BASE_URL``, else OpenAI). The key
    is read from the environment variable ``api_key_env``. ``timeout`` are seconds of one attempt.
    """

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0
    max_tokens: PositiveInt = 1024
    timeout: Seconds = 60.0
    retries: NonNegativeInt = 2
    input_price: NonNegative = 0.0
    output_price: NonNegative = 0.0


class ChatAnswer(msgspec.Struct, kw_only=True):
    """What a model replied: its text, empty where it said nothing, the tokens that this took, and whether the answer
    reached ``max_tokens`` before its end."""

    text: str
    usage: Usage
    cut_off: bool


class ChatModel:
    """Asks the model of a config. Safe to use from several event loops; ``at`` is the config's path, for errors."""

    def __init__(self, config: ChatModelConfig, *, at: str) -> None:
        """Raises `ConfigError` where the variable that holds its key is not set."""
        self.config = config
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._key = _key_of(config, at)
        # The client's limit is for each piece of an answer, which may come for ever.
        self._limit = (config.timeout + BACKOFF_SECONDS) * config.retries + config.timeout
        self._prices = ModelChoice(
            name=config.model,
            model=config.model,
            input_price=config.input_price,
            output_price=config.output_price,
        )

    def dollars(self, usage: Usage) -> float:
        """What so many tokens cost."""
        return self._prices.cost(usage)

    async def answer(self, messages: Sequence[Mapping[str, Any]], *, seed: int | None = None) -> ChatAnswer:
        """Its answer, and what that took. Raises `ChatModelError` where there is none after all retries."""
        try:
            async with asyncio.timeout(self._limit):
                answer = await self._request(messages, seed)
        except openai.OpenAIError as error:
            raise ChatModelError(f"{self._name}: {redact(str(error)) or type(error).__name__}") from error
        except TimeoutError as error:
            raise ChatModelError(f"{self._name}: no answer within {self._limit:g} s") from error
        try:
            return _read(answer)
        except (AttributeError, TypeError, ValueError) as error:
            raise ChatModelError(f"{self._name}: the answer is no chat completion: {str(answer)[:200]!r}") from error

    async def _request(self, messages: Sequence[Mapping[str, Any]], seed: int | None) -> Any:
        options: dict[str, Any] = {} if seed is None else {"seed": seed}
        with outside():
            return await self._client().chat.completions.create(
                model=self.config.model,
                messages=list(messages),  # type: ignore[arg-type]
                temperature=self.config.temperature,
                max_tokens=self.config.max_tokens,
                **options,
            )

    async def aclose(self) -> None:
        """Closes the connections of the event loop that runs here. Safe to call twice."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    @property
    def _name(self) -> str:
        return f"{self.config.model} at {self.config.base_url or os.environ.get('OPENAI_BASE_URL') or 'OpenAI'}"

    def _client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                client = self._clients[loop] = openai.AsyncOpenAI(
                    api_key=self._key,
                    base_url=self.config.base_url,
                    timeout=self.config.timeout,
                    max_retries=self.config.retries,
                )
            return client


def why_unusable(error: UnusableReplyError, *, cut_off: bool) -> str:
    """What a reader said of a reply, and whether that is whole."""
    return f"{error}; the reply was cut off at max_tokens" if cut_off else str(error)


def asked_again(messages: Sequence[Mapping[str, Any]], reply: str, request: str) -> list[Mapping[str, Any]]:
    """A question with a reply that could not be used, and what the model is to do about it."""
    quoted = {"role": "assistant", "content": reply[:MAX_QUOTED] or "(nothing)"}
    return [*messages, quoted, {"role": "user", "content": request}]


def _read(answer: Any) -> ChatAnswer:
    """What an endpoint sent, of which the client checks nothing."""
    usage, (choice, *_) = answer.usage, answer.choices
    read = ChatAnswer(
        text=choice.message.content or "",
        usage=Usage()
        if usage is None
        else Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens),
        cut_off=choice.finish_reason == "length",
    )
    return msgspec.convert(msgspec.to_builtins(read), ChatAnswer)


def _key_of(config: ChatModelConfig, at: str) -> str | None:
    if config.api_key_env is None:
        return _NO_KEY if config.base_url is not None else os.environ.get("OPENAI_API_KEY", _NO_KEY)
    key = os.environ.get(config.api_key_env)
    if not key:
        raise ConfigError(
            f"{at}.api_key_env: the environment variable {config.api_key_env}, which should hold the key of "
            f"{config.model}, is not set; set it, or leave api_key_env out"
        )
    remember(key)
    return key
