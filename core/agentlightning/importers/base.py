"""What reads the exports of one tool, and what it gives."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from agentlightning.loading import explain
from agentlightning.records import Record, Reward
from agentlightning.store.base import Recorded

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Row(NamedTuple):
    """One record of an export, as JSON; ``where`` is its place, ``file:line``."""

    where: str
    json: bytes

    def decoded(self) -> Any:
        """What it says. Raises `msgspec.DecodeError`."""
        return msgspec.json.decode(self.json)


class NotRead(Record, kw_only=True):
    """Things of one kind that could not be read for one reason: how many, and where the first of them is."""

    what: str
    reason: str
    count: int
    first: str


class Unread:
    """What could not be read of an export, counted by its reason."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], NotRead] = {}

    def add(self, what: str, reason: str, where: str, count: int = 1) -> None:
        """Counts ``what`` (``observation``, ``score`` …) that cannot be read for a ``reason``."""
        known = self._found.get((what, reason))
        if known is None:
            self._found[what, reason] = NotRead(what=what, reason=reason, count=count, first=where)
        else:
            known.count += count

    @property
    def counts(self) -> list[NotRead]:
        """The most frequent first."""
        return sorted(self._found.values(), key=lambda found: -found.count)


class LateRewards(NamedTuple):
    """Rewards of a rollout that is not in these files: it may be in the store. Each ``span_id`` is as `Recorded` of
    that rollout would have it, also where it is the root's."""

    rollout_id: str
    rewards: list[Reward]
    where: str


class Importer(ABC):
    """Reads the exports of one tool. A plugin (`agentlightning.hookspecs.register_importers`)."""

    name: ClassVar[str]
    """The format, as ``agl import --format`` names it."""

    def __init__(self, run_id: str, unread: Unread) -> None:
        self.run_id = run_id
        self.unread = unread

    @classmethod
    @abstractmethod
    def recognizes(cls, record: Mapping[str, Any]) -> bool:
        """Whether a record is one of this format. It is asked of the first records of a file."""

    @abstractmethod
    def read(self, rows: Iterable[Row]) -> Iterator[Recorded | LateRewards]:
        """The rollouts of the run ``run_id`` in the records of all files of this format, as they ended.

        What cannot be read is told to ``unread``, and the rest is read all the same.
        """

    def attempt(self, what: str, where: str, make: Callable[..., T], *given: Any) -> T | None:
        """What ``make(*given)`` makes; None, and told to ``unread``, where it raises: an export may hold anything."""
        try:
            return make(*given)
        except Exception as error:
            logger.debug("%s at %s cannot be read", what, where, exc_info=True)
            self.unread.add(what, f"it cannot be read: {explain(error)}", where)
            return None

    def rollout_id(self, source_id: str) -> str:
        """The id of the rollout that the tool knows by ``source_id``: the same whenever it is imported into the run."""
        return digest(self.run_id, self.name, source_id)


def digest(*parts: str) -> str:
    """16 hexadecimal digits that follow from the parts."""
    return hashlib.blake2b("\x1f".join(parts).encode(errors="replace"), digest_size=8).hexdigest()
