"""A judge's model, asked: from the cache where it was asked the same before, again where its reply cannot be used."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from agentlightning_judge.cache import ReplyCache
from agentlightning_judge.config import JudgeConfig
from agentlightning_judge.questions import Question, Verdict
from agentlightning_openai.chat_model import (
    ChatAnswer,
    ChatModel,
    ChatModelError,
    UnusableReplyError,
    asked_again,
    why_unusable,
)

T = TypeVar("T")


class UnansweredError(Exception):
    """A question that the judge did not answer; the message says why."""


class Tally:
    """What judging some rollouts took and showed, in numbers that add up (`agentlightning.records.Reward.metrics`)."""

    def __init__(self) -> None:
        self._numbers: dict[str, float] = {}

    def add(self, **numbers: float) -> None:
        for name, number in numbers.items():
            if number:
                self._numbers[name] = self._numbers.get(name, 0) + number

    def get(self, name: str) -> float:
        return self._numbers.get(name, 0)

    def spread(self, count: int) -> list[dict[str, float]]:
        """The numbers shared among so many rollouts: whole ones stay whole."""
        shares = [{name: _part(number, of, count) for name, number in self._numbers.items()} for of in range(count)]
        return [{name: number for name, number in share.items() if number} for share in shares]


def _part(number: float, of: int, count: int) -> float:
    if isinstance(number, float):
        return number / count
    return number // count + (of < number % count)


class Asker:
    """Asks the model of a judge's config."""

    def __init__(self, config: JudgeConfig) -> None:
        """Raises `ConfigError` where the model's key is not there."""
        self._config = config
        self._model = ChatModel(config.model, at="reward.config.model")
        self._cache = None if config.cache is None else ReplyCache(config.cache)
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def ask(self, question: Question[T], tally: Tally, *, seed: int | None = None) -> Verdict[T]:
        """The judge's verdict; what it took goes into the tally.

        Raises `UnansweredError` where the model cannot be reached, or no reply could be used.
        """
        key = self._key(question.messages, seed)
        kept = await self._kept(key)
        if kept is not None:
            try:
                verdict = question.read(kept)
            except UnusableReplyError:
                pass  # of a form that is no longer asked for
            else:
                tally.add(cached=1)
                return verdict
        async with self._slot():
            return await self._ask_until_usable(question, key, tally, seed)

    async def _ask_until_usable(self, question: Question[T], key: str, tally: Tally, seed: int | None) -> Verdict[T]:
        why = ""
        messages: Sequence[Mapping[str, Any]] = question.messages
        for _ in range(1 + self._config.retries):
            answer = await self._answer(messages, tally, seed)
            try:
                verdict = question.read(answer.text)
            except UnusableReplyError as error:
                tally.add(unusable=1)
                why = why_unusable(error, cut_off=answer.cut_off)
                again = f"Your reply cannot be used: {why}. Reply again, with the JSON object alone."
                messages = asked_again(question.messages, answer.text, again)
            else:
                if self._cache is not None:
                    await asyncio.to_thread(self._cache.put, key, answer.text)
                return verdict
        raise UnansweredError(
            f"the judge {self._config.model.model} gave no reply that can be used in {1 + self._config.retries} "
            f"attempts; of the last: {why}"
        )

    async def _answer(self, messages: Sequence[Mapping[str, Any]], tally: Tally, seed: int | None) -> ChatAnswer:
        try:
            answer = await self._model.answer(messages, seed=seed)
        except ChatModelError as error:
            tally.add(failed=1)
            raise UnansweredError(f"the judge did not answer: {error}") from error
        tally.add(calls=1, input_tokens=answer.usage.input_tokens, output_tokens=answer.usage.output_tokens)
        tally.add(dollars=float(self._model.dollars(answer.usage)))
        return answer

    async def _kept(self, key: str) -> str | None:
        return None if self._cache is None else await asyncio.to_thread(self._cache.get, key)

    def _key(self, messages: Sequence[Mapping[str, Any]], seed: int | None) -> str:
        """The digest of all that is asked, and of whom."""
        model = self._config.model
        asked = [model.model, model.base_url, model.temperature, model.max_tokens, seed, list(messages)]
        return hashlib.blake2b(msgspec.json.encode(asked), digest_size=16).hexdigest()

    def _slot(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            self._slots[loop] = asyncio.Semaphore(self._config.concurrency)
        return self._slots[loop]


async def gather_answers(asked: Iterable[Any]) -> tuple[list[Any], list[str]]:
    """The verdicts of questions asked at once, None for each that was not answered, and why those were not."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    errors = []
    verdicts: list[Any] = []
    for one in found:
        if isinstance(one, UnansweredError):
            errors.append(str(one))
        elif isinstance(one, BaseException):
            raise one
        verdicts.append(None if isinstance(one, BaseException) else one)
    return verdicts, list(dict.fromkeys(errors))
