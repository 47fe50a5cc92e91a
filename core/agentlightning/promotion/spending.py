"""What rollouts cost, task by task: in dollars where every model has a price, else in tokens."""

from __future__ import annotations

from collections.abc import Iterable

from agentlightning.recording.recorder import matches
from agentlightning.records import AnyResource, ModelChoice, ModelRouter, Policy, Record, Rollout, Span
from agentlightning.store.base import Store

DOLLARS = "dollars"


class Spending(Record, kw_only=True):
    """The mean of a task's rollouts in ``unit``: `DOLLARS`, or tokens of the models named there. Only what is of one
    unit can be compared."""

    unit: str
    by_task: dict[str, float]


async def spending_of(store: Store, rollouts: Iterable[Rollout]) -> Spending:
    """What rollouts of one run cost. An agent's calls have the price of the `ModelChoice` that answered them."""
    dollars: dict[str, list[float | None]] = {}
    tokens: dict[str, list[float]] = {}
    models: set[str] = set()
    resources: dict[str, AnyResource | None] = {}
    for rollout in rollouts:
        if not rollout.is_scorable:
            continue
        for digest in rollout.resources.values():
            if digest not in resources:
                resources[digest] = await store.resource(rollout.run_id, digest)
        ran_with = [found for digest in rollout.resources.values() if (found := resources[digest]) is not None]
        spans = await store.spans(rollout.id, attempt=rollout.attempt)
        prices = [price_of(span, ran_with) for span in spans if span.generation is not None]
        known = [price for price in prices if price is not None]
        dollars.setdefault(rollout.task_id, []).append(sum(known) if len(known) == len(prices) else None)
        tokens.setdefault(rollout.task_id, []).append(sum(map(_tokens, spans)))
        models |= {str(span.generation.model) for span in spans if span.generation is not None}
    if dollars and all(price is not None for prices in dollars.values() for price in prices):
        priced = {task: [price or 0.0 for price in prices] for task, prices in dollars.items()}
        return Spending(unit=DOLLARS, by_task=_means(priced))
    return Spending(unit=f"tokens of {', '.join(sorted(models))}", by_task=_means(tokens))


def price_of(span: Span, resources: Iterable[AnyResource]) -> float | None:
    """Dollars for a call; None where nobody has said what it costs."""
    usage = span.generation.usage if span.generation is not None else None
    for resource in resources:
        if isinstance(resource, Policy | ModelChoice | ModelRouter) and matches(span.agent, resource.agents):
            choice = resource.chosen(span) if isinstance(resource, ModelRouter) else resource
            if usage is None or not isinstance(choice, ModelChoice):
                return None
            return choice.cost(usage) if choice.input_price > 0 or choice.output_price > 0 else None
    return None


def _tokens(span: Span) -> int:
    usage = span.generation.usage if span.generation is not None else None
    return 0 if usage is None else usage.input_tokens + usage.output_tokens


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {task: sum(each) / len(each) for task, each in values.items()}
