"""The model that reflects: what it is asked, what of its replies can be used, and what that costs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from agentlightning.config import PositiveInt
from agentlightning.errors import ConfigError
from agentlightning.records import Policy, Record, Usage
from agentlightning_openai.chat_model import (
    ChatModel,
    ChatModelConfig,
    ChatModelError,
    UnusableReplyError,
    asked_again,
    why_unusable,
)

T = TypeVar("T")
Messages = Sequence[Mapping[str, Any]]

logger = logging.getLogger(__name__)

POLICY = "policy"
"""The name of the run's own model."""
REPLIES = "reflections.jsonl"


class ReflectionConfig(ChatModelConfig, kw_only=True, forbid_unknown_fields=True):
    """A model that proposes prompts. ``model: policy`` without a ``base_url`` is the run's own.

    A reply that cannot be used is asked for again, ``attempts`` times in all.
    """

    max_tokens: PositiveInt = 2048
    attempts: Annotated[int, msgspec.Meta(ge=1, le=20)] = 3

    @property
    def is_policy(self) -> bool:
        return self.model == POLICY and self.base_url is None

    def served_by(self, policy: Policy) -> ReflectionConfig:
        """The same, asked of a policy."""
        return msgspec.structs.replace(
            self, model=policy.model, base_url=policy.base_url, api_key_env=policy.api_key_env
        )


class Reply(Record, kw_only=True):
    """What came of one request: a text, or why there is none."""

    key: str
    text: str | None = None
    error: str | None = None
    cut_off: bool = False
    input_tokens: int = 0
    output_tokens: int = 0


class Reflector:
    """Asks the model that reflects, and keeps its replies in the run's folder: a run that goes on is told the same
    again, and neither pays nor decides twice."""

    def __init__(self, config: ReflectionConfig, directory: Path) -> None:
        """Raises `ConfigError` where the model's key is not there."""
        self._config = config
        self._model = ChatModel(config, at="algorithm.reflection")
        self._path = directory / REPLIES
        self._kept = _read(self._path)
        self._count: Counter[str] = Counter()
        self._usage = Usage()

    async def ask(self, messages: Messages, read: Callable[[str], T], *, key: str) -> T | None:
        """What ``read`` makes of the model's reply. Where that raises `UnusableReplyError` the model is told why and
        asked again; None where it gave nothing that can be used, which is logged. ``key`` names the question in the
        run."""
        asked, why = list(messages), ""
        for attempt in range(self._config.attempts):
            reply = await self._reply(asked, f"{key}/{attempt}")
            if reply.text is None:
                why = reply.error or "no reply"
                continue
            try:
                return read(reply.text)
            except UnusableReplyError as error:
                self._count["unusable"] += 1
                why = why_unusable(error, cut_off=reply.cut_off)
                asked = asked_again(messages, reply.text, f"This cannot be used: {why}. Reply again.")
        logger.warning(
            "the reflection model %s gave nothing that can be used in %d attempts; of the last: %s",
            self._config.model,
            self._config.attempts,
            why,
        )
        self._count["given_up"] += 1
        return None

    @property
    def given_up(self) -> int:
        """How often all attempts came to nothing."""
        return self._count["given_up"]

    def metrics(self) -> dict[str, float]:
        """What reflecting took so far."""
        return {
            "reflection_calls": self._count["calls"],
            "reflection_tokens": self._usage.input_tokens + self._usage.output_tokens,
            "reflection_dollars": self._model.dollars(self._usage),
            "reflection_failed": self._count["failed"],
            "reflection_unusable": self._count["unusable"],
        }

    async def aclose(self) -> None:
        """Closes its connections. Safe to call twice."""
        await self._model.aclose()

    async def _reply(self, messages: Messages, key: str) -> Reply:
        key = f"{key}/{self._digest(messages)}"
        reply = self._kept.get(key)
        if reply is None:
            reply = await self._request(messages, key)
            self._kept[key] = reply
            await asyncio.to_thread(_append, self._path, reply)
        self._count["calls"] += 1
        self._count["failed"] += reply.text is None
        self._usage.input_tokens += reply.input_tokens
        self._usage.output_tokens += reply.output_tokens
        return reply

    async def _request(self, messages: Messages, key: str) -> Reply:
        try:
            answer = await self._model.answer(messages)
        except ChatModelError as error:
            return Reply(key=key, error=str(error))
        return Reply(
            key=key,
            text=answer.text,
            cut_off=answer.cut_off,
            input_tokens=answer.usage.input_tokens,
            output_tokens=answer.usage.output_tokens,
        )

    def _digest(self, messages: Messages) -> str:
        """What is asked. Where a model is served is no part of it: the run's own has another port each time."""
        asked = msgspec.json.encode([self._config.temperature, list(messages)])
        return hashlib.blake2b(asked, digest_size=8).hexdigest()


def reflection_config(section: ReflectionConfig | str, *, has_model: bool) -> ReflectionConfig:
    """The section ``reflection``, as it is or by the word `POLICY`. Raises `ConfigError`."""
    if isinstance(section, str):
        section = ReflectionConfig(model=section)
    if section.is_policy and not has_model:
        raise ConfigError(
            "algorithm.reflection: policy is the run's own model, and there is none: give algorithm.model, or name "
            "another model with its base_url"
        )
    return section


def fenced(text: str) -> str:
    """The text between the first ``` and the last, without a language's name. Raises `UnusableReplyError` where there
    is none, or nothing in it."""
    start, end = text.find("```"), text.rfind("```")
    if start < 0:
        raise UnusableReplyError("there is no block between ``` and ``` in it")
    if end <= start:
        raise UnusableReplyError("the block that ``` opens is not closed by another ```")
    inner = text[start + 3 : end]
    first, newline, rest = inner.partition("\n")
    found = (rest if newline and " " not in first.strip() else inner).strip()
    if not found:
        raise UnusableReplyError("the block between ``` and ``` is empty")
    return found


def _read(path: Path) -> dict[str, Reply]:
    """The replies in a file; a last line that was cut off in a crash is none."""
    found: dict[str, Reply] = {}
    if not path.exists():
        return found
    for line in path.read_bytes().split(b"\n"):
        try:
            reply = msgspec.json.decode(line, type=Reply)
        except msgspec.DecodeError:
            continue
        found[reply.key] = reply
    return found


def _append(path: Path, reply: Reply) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if file.tell():
            file.write(b"\n")  # before the line: one that a crash cut off is then by itself
        file.write(msgspec.json.encode(reply))
        file.flush()
        os.fsync(file.fileno())
