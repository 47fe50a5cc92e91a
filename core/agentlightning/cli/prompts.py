"""The prompts that a run's agents gave their models: found in what was recorded, whatever the framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from agentlightning.records import Record, Span
from agentlightning.store.base import Store

ROLES = ("system", "developer")


class FoundPrompt(Record, kw_only=True):
    """One system prompt of one agent, which ``calls`` of its model calls had.

    ``role`` is that of its message, ``system`` (which a responses call's ``instructions`` count as) or ``developer``.
    """

    agent: str | None
    role: str
    text: str
    calls: int


async def prompts_of(store: Store, run_id: str) -> list[FoundPrompt]:
    """Every system prompt of a run's agents: agents by name, the most used prompt of each first."""
    counts: Counter[tuple[str | None, str, str]] = Counter()
    for rollout in [rollout for rollout in await store.rollouts(run_id) if rollout.counts]:
        for span in await store.spans(rollout.id):
            counts.update((span.agent, role, text) for role, text in _prompts(span))
    found = [
        FoundPrompt(agent=agent, role=role, text=text, calls=calls) for (agent, role, text), calls in counts.items()
    ]
    return sorted(found, key=lambda prompt: (prompt.agent or "", -prompt.calls, prompt.text))


def _prompts(span: Span) -> Iterator[tuple[str, str]]:
    for message in span.generation.messages if span.generation is not None else ():
        if message.get("role") in ROLES:
            yield message["role"], _text(message.get("content"))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")
