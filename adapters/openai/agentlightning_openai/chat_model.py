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

_NO_KEY = "none"
"""An endpoint of one's own needs none, and a client cannot be made without."""


class ChatModelError(AgentLightningError):
    """A model that the library asked gave no answer; the message says which, where, and why."""


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
        self.calls = 0
        """Answers so far, failed ones not among them."""
        self.usage = Usage(input_tokens=0, output_tokens=0)
        """Tokens so far, as the endpoint counted them."""
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._key = _key_of(config, at)

    @property
    def dollars(self) -> float:
        """What it has cost so far."""
        prices = ModelChoice(
            name=self.config.model,
            model=self.config.model,
            input_price=self.config.input_price,
            output_price=self.config.output_price,
        )
        return prices.cost(self.usage)

    async def ask(
        self, messages: Sequence[Mapping[str, Any]], *, temperature: float | None = None, seed: int | None = None
    ) -> str:
        """The text of its answer. ``temperature`` takes the place of the config's.

        Raises `ChatModelError` where there is none after all retries, or an empty one.
        """
        found = await self.answer(messages, temperature=temperature, seed=seed)
        if not found.text.strip():
            raise ChatModelError(f"{self._name}: the answer is empty")
        return found.text

    async def answer(
        self, messages: Sequence[Mapping[str, Any]], *, temperature: float | None = None, seed: int | None = None
    ) -> ChatAnswer:
        """Its answer with what that took, for whoever counts by itself; `ask` gives the text alone.

        Raises `ChatModelError` where there is none after all retries.
        """
        options: dict[str, Any] = {} if seed is None else {"seed": seed}
        try:
            with outside():
                answer = await self._client().chat.completions.create(
                    model=self.config.model,
                    messages=list(messages),  # type: ignore[arg-type]
                    temperature=self.config.temperature if temperature is None else temperature,
                    max_tokens=self.config.max_tokens,
                    **options,
                )
        except openai.OpenAIError as error:
            raise ChatModelError(f"{self._name}: {redact(str(error)) or type(error).__name__}") from error
        try:
            read = _read(answer)
        except (AttributeError, TypeError, msgspec.ValidationError) as error:
            raise ChatModelError(f"{self._name}: the answer is no chat completion: {str(answer)[:200]!r}") from error
        with self._lock:
            self.calls += 1
            self.usage.input_tokens += read.usage.input_tokens
            self.usage.output_tokens += read.usage.output_tokens
        return read

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


def _read(answer: Any) -> ChatAnswer:
    """What an endpoint sent, of which the client checks nothing."""
    usage, choice = answer.usage, answer.choices[0] if answer.choices else None
    read = ChatAnswer(
        text="" if choice is None else choice.message.content or "",
        usage=Usage()
        if usage is None
        else Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens),
        cut_off=choice is not None and choice.finish_reason == "length",
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
