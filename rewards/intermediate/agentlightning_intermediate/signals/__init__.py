"""The signals by name."""

from __future__ import annotations

from agentlightning_intermediate.content import shown
from agentlightning_intermediate.signals.answers import answer_cut_off, answer_not_json, context_overflow
from agentlightning_intermediate.signals.handoffs import handoff_circle
from agentlightning_intermediate.signals.retrieval import retrieval_empty, retrieval_unused
from agentlightning_intermediate.signals.signal import Occurrence, Signal, SignalOptions
from agentlightning_intermediate.signals.sql import sql_empty, sql_invalid
from agentlightning_intermediate.signals.tools import tool_error, tool_malformed, tool_repeated
from agentlightning_intermediate.trace import Trace

SQL_OPTIONS = ("sql_tools", "sql_argument")
LONGEST_REASON = 400
"""Characters: names of tools and agents are whatever somebody wrote, too."""

SIGNALS: dict[str, Signal] = {
    "tool_error": Signal(tool_error),
    "tool_malformed": Signal(tool_malformed),
    "tool_repeated": Signal(tool_repeated),
    "sql_invalid": Signal(sql_invalid, (*SQL_OPTIONS, "sql_agents", "sql_dialect")),
    "sql_empty": Signal(sql_empty, SQL_OPTIONS),
    "retrieval_empty": Signal(retrieval_empty, ("retrieval_tools",)),
    "retrieval_unused": Signal(retrieval_unused, ("retrieval_tools",), at_the_end=True),
    "answer_cut_off": Signal(answer_cut_off),
    "answer_not_json": Signal(answer_not_json, ("json_agents",)),
    "context_overflow": Signal(context_overflow),
    "handoff_circle": Signal(handoff_circle),
}


def occurrences(name: str, trace: Trace, options: SignalOptions) -> list[Occurrence]:
    """Every occurrence of a signal in a rollout, in the order in which they were known."""
    found = [one._replace(reason=shown(one.reason, LONGEST_REASON)) for one in SIGNALS[name].find(trace, options)]
    return sorted(found, key=lambda one: (one.known_at, one.answer.index, one.reason))


__all__ = ["SIGNALS", "Occurrence", "Signal", "SignalOptions", "occurrences"]
