"""What a run cost: rollouts, tokens, dollars; what learning took, and apart from that what measuring it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agentlightning.budget import COUNTED
from agentlightning.promotion.spending import price_of
from agentlightning.recording.recorder import matches
from agentlightning.records import AnyResource, ModelChoice, Policy, Record, Rollout, Span
from agentlightning.store.base import Metric, RunRecord, Store

REFLECTION = "reflection_"
"""Begins the names of metrics that count what an algorithm has asked a model of its own so far."""

Prices = Mapping[str, tuple[float, float]]
"""Dollars per million input and output tokens, by the name of the model."""


class Cost(Record, kw_only=True):
    """``rollouts``, and what their calls and those of rewards and reflection took. ``dollars`` are those of the calls
    whose price is known, and ``unpriced`` counts the others; ``uncounted`` those whose tokens no endpoint counted. What
    this machine itself computes costs no dollars."""

    rollouts: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0
    unpriced: int = 0
    uncounted: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Account(Record, kw_only=True):
    """What a run cost. ``learning`` is what the budget is for, with the rollouts of the first check; ``evaluation``
    that of the held-out tasks. ``seconds`` are those of all its sessions, evaluations among them. ``task_tokens`` and
    ``task_dollars`` are the means of a rollout of the last evaluation: what it costs to use."""

    learning: Cost = msgspec.field(default_factory=Cost)
    evaluation: Cost = msgspec.field(default_factory=Cost)
    seconds: float = 0.0
    task_tokens: float | None = None
    task_dollars: float | None = None

    def followed_by(self, later: Account) -> Account:
        """Both together: what it takes to learn one after the other, and what the later one costs to use."""
        return Account(
            learning=self.learning + later.learning,
            evaluation=self.evaluation + later.evaluation,
            seconds=self.seconds + later.seconds,
            task_tokens=later.task_tokens,
            task_dollars=later.task_dollars,
        )


async def account_of(store: Store, run: RunRecord, *, prices: Prices, seconds: float) -> Account:
    """Counts a run's rollouts, every attempt of each, and what its rewards and its reflection asked."""
    resources = {resource.digest: resource for resource in await store.resources(run.id)}
    learning, evaluation = _reflection(await store.metrics(run.id)), Cost()
    last: dict[int, list[Cost]] = {}
    for rollout in await store.rollouts(run.id):
        ran_with = [resources[digest] for digest in rollout.resources.values() if digest in resources]
        attempts = [await store.spans(rollout.id, attempt=number + 1) for number in range(rollout.attempt)]
        cost = _calls((span for spans in attempts for span in spans), ran_with, prices)
        judged = _rewards(rollout)
        if rollout.purpose == "evaluate":
            evaluation += cost + judged + Cost(rollouts=1)
            if rollout.finished:
                last.setdefault(rollout.step, []).append(_calls(attempts[-1] if attempts else (), ran_with, prices))
        else:
            learning += cost + judged + Cost(rollouts=int(rollout.purpose in COUNTED))
    used = last[max(last)] if last else []
    counted = bool(used) and not any(one.uncounted for one in used)
    return Account(
        learning=learning,
        evaluation=evaluation,
        seconds=seconds,
        task_tokens=sum(one.tokens for one in used) / len(used) if counted else None,
        task_dollars=(
            sum(one.dollars for one in used) / len(used) if counted and not any(one.unpriced for one in used) else None
        ),
    )


def known_prices(algorithm: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """What the candidates of a selection cost, by the names of the models; few_shot has a number under this key."""
    candidates = algorithm.get("candidates")
    found = {}
    for one in candidates if isinstance(candidates, list | tuple) else ():
        if isinstance(one, Mapping) and (one.get("input_price") or one.get("output_price")):
            found[str(one.get("model"))] = (float(one.get("input_price", 0)), float(one.get("output_price", 0)))
    return found


def _calls(spans: Iterable[Span], ran_with: Iterable[AnyResource], prices: Prices) -> Cost:
    resources = list(ran_with)
    total = Cost()
    for span in spans:
        generation = span.generation
        if generation is None:
            continue
        total.calls += 1
        if generation.usage is None:
            total.uncounted += 1
            total.unpriced += not _is_computed_here(span, resources)
            continue
        total.input_tokens += generation.usage.input_tokens
        total.output_tokens += generation.usage.output_tokens
        if _is_computed_here(span, resources):
            continue
        dollars = price_of(span, resources)
        if dollars is None and generation.model is not None and generation.model in prices:
            of_input, of_output = prices[generation.model]
            choice = ModelChoice(name="", model=generation.model, input_price=of_input, output_price=of_output)
            dollars = choice.cost(generation.usage)
        if dollars is None:
            total.unpriced += 1
        else:
            total.dollars += dollars
    return total


def _is_computed_here(span: Span, resources: Iterable[AnyResource]) -> bool:
    """Whether a policy that needs no key answered the call: its price is the time that it took."""
    return any(
        isinstance(one, Policy) and one.api_key_env is None and matches(span.agent, one.agents) for one in resources
    )


def _rewards(rollout: Rollout) -> Cost:
    """What its rewards asked models."""
    total = Cost()
    for reward in rollout.rewards:
        total += _counted(reward.metrics)
    return total


def _reflection(metrics: Iterable[Metric]) -> Cost:
    """What the algorithm has asked a model of its own, by the last step that counted it."""
    counted = [metric for metric in metrics if metric.name.startswith(REFLECTION)]
    last = {metric.name: metric.value for metric in sorted(counted, key=lambda metric: metric.step)}
    return _counted({name.removeprefix(REFLECTION): value for name, value in last.items()})


def _counted(numbers: Mapping[str, float]) -> Cost:
    """Numbers of what was asked: ``calls``, ``input_tokens``, ``output_tokens`` (or ``tokens``), ``dollars``."""
    return Cost(
        calls=round(numbers.get("calls", 0)),
        input_tokens=round(numbers.get("input_tokens", numbers.get("tokens", 0))),
        output_tokens=round(numbers.get("output_tokens", 0)),
        dollars=float(numbers.get("dollars", 0.0)),
    )
