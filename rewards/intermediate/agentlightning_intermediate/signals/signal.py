"""What a signal is: something in a rollout's spans that an answer caused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from agentlightning.records import Span
from agentlightning_intermediate.trace import Trace


class SignalOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What signals have to be told about an agent. Names of tools and agents are patterns; upper and lower case are the
    same.

    ``sql_tools`` take SQL, in the argument ``sql_argument`` (``sql``, ``query`` or ``statement`` by default, or the
    whole where the arguments are a text); answers of ``sql_agents`` are SQL, alone or in a code block; ``sql_dialect``
    is the name of a dialect of sqlglot. ``retrieval_tools`` look something up, beside the spans that say so themselves.
    Answers of ``json_agents`` that call no tool are JSON, beside those whose request says so.
    """

    sql_tools: list[str] = msgspec.field(default_factory=lambda: ["*sql*"])
    sql_argument: str | None = None
    sql_agents: list[str] = []
    sql_dialect: str | None = None
    retrieval_tools: list[str] = msgspec.field(default_factory=lambda: ["*search*", "*retriev*"])
    json_agents: list[str] = []


class Occurrence(NamedTuple):
    """A signal, once: the answer that caused it, since when it is known (seconds since the epoch; infinite: only when
    the rollout is over), and what happened, in words."""

    answer: Span
    known_at: float
    reason: str

    def is_before(self, call: Span) -> bool:
        """Whether it belongs to what had happened when a call began."""
        return self.answer.index < call.index and self.known_at <= call.started_at


class Signal(NamedTuple):
    """How a signal is found, the fields of `SignalOptions` that it reads, and whether it is known only when the rollout
    is over."""

    find: Callable[[Trace, SignalOptions], Iterator[Occurrence]]
    options: tuple[str, ...] = ()
    at_the_end: bool = False


def named(name: str | None, patterns: list[str]) -> bool:
    """Whether a name matches one of the patterns."""
    return name is not None and any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
