"""Functions for the option ``progress``, as a user writes them."""

from __future__ import annotations

from typing import Any

from agentlightning.records import Rollout, Span, Task

SEEN: list[tuple[Any, Any]] = []


def by_index(rollout: Rollout, task: Task, span: Span) -> float:
    """A quarter for each span before the call; keeps what it was shown of how the call and the rollout end."""
    generation = span.generation
    assert generation is not None
    SEEN.append((generation.response, rollout.output))
    return 3.0 + span.index / 4


def unknown(rollout: Rollout, task: Task, span: Span) -> None:
    return None


def broken(rollout: Rollout, task: Task, span: Span) -> float:
    raise LookupError("no such room")


async def later(rollout: Rollout, task: Task, span: Span) -> float:
    return 1.0


NUMBER = 3
