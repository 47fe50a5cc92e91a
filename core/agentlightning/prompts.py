"""The prompts of a run's agents: found in what was recorded, whatever the framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from agentlightning import semconv
from agentlightning.errors import ConfigError
from agentlightning.records import Prompt, Record, Span
from agentlightning.store.base import Store
from agentlightning.system_prompts import SYSTEM_ROLES, text_of


class FoundPrompt(Record, kw_only=True):
    """A prompt that is there to be changed, and how many ``calls`` had it (rollouts, where it has a name).

    Either the system prompt of an agent, whose message has the ``role`` ``system`` (which a responses call's
    ``instructions`` count as) or ``developer``; or one that the code asks for by its ``name``
    (`agentlightning.prompt`), whose ``text`` is the default that stands there.
    """

    agent: str | None = None
    name: str | None = None
    role: str = "system"
    text: str
    calls: int = 0


async def prompts_of(store: Store, run_id: str) -> list[FoundPrompt]:
    """Every prompt of a run's agents, as `prompts_in` has them."""
    spans: list[Span] = []
    for rollout in [rollout for rollout in await store.rollouts(run_id) if rollout.counts]:
        spans += await store.spans(rollout.id)
    return prompts_in(spans)


async def published_prompts(store: Store, run_id: str) -> list[Prompt]:
    """The prompts that a run published last. Raises `ConfigError` where there is no such run, or it has none."""
    run = await store.run(run_id)
    if run is None:
        raise ConfigError(f"prompts_from: there is no run {run_id} in this store; `agl runs` lists what is there")
    found = [resource for resource in await store.published(run) if isinstance(resource, Prompt)]
    if not found:
        raise ConfigError(
            f"prompts_from: run {run_id} ({run.algorithm}, {run.status}) published no prompt; name one that learned "
            "prompts or demonstrations"
        )
    return found


def prompts_in(spans: Sequence[Span]) -> list[FoundPrompt]:
    """Every prompt in these spans: those with a name by name, then those of agents by their names, the most used of
    each first."""
    counts = Counter(prompt for span in spans for prompt in _prompts(span))
    found = [
        FoundPrompt(agent=agent, name=name, role=role, text=text, calls=calls)
        for (agent, name, role, text), calls in counts.items()
    ]
    return sorted(found, key=lambda it: (it.name is None, it.name or "", it.agent or "", -it.calls, it.text))


def _prompts(span: Span) -> Iterator[tuple[str | None, str | None, str, str]]:
    """Agent, name, role and text of each."""
    if span.kind == "annotation" and semconv.PROMPT_NAME in span.attributes:
        yield None, span.attributes[semconv.PROMPT_NAME], "system", span.attributes[semconv.PROMPT_DEFAULT]
    for message in span.generation.messages if span.generation is not None else ():
        if message.get("role") in SYSTEM_ROLES:
            yield span.agent, None, message["role"], text_of(message.get("content")) or ""
