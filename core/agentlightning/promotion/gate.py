"""The gate: whether what a run made is better than what is in production, or not worse and cheaper.

Its last evaluation is compared with one of what is in production, by a paired test on the same held-out tasks. Nothing
here is drawn or waited for: the same evaluations give the same verdict, however often one asks. Of two equal resources
at most a share ``alpha`` comes through: half of it for "better", half for "cheaper".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from agentlightning.algorithm import Evaluation
from agentlightning.betting import p_value
from agentlightning.config import PromoteConfig, decode_section
from agentlightning.formatting import format_number, format_p
from agentlightning.promotion.production import deployable
from agentlightning.promotion.spending import Spending, spending_of
from agentlightning.records import Record
from agentlightning.report import (
    Comparison,
    compare,
    evaluations_of,
    on_shared_tasks,
    only_tasks,
    sign_flip,
    task_identity,
)
from agentlightning.store.base import RunRecord, Store
from agentlightning.store.promotions import Promotion


class Costs(Record, kw_only=True):
    """What a task cost on average ``before`` and ``after``, in ``unit``, and the two-sided p of the paired
    difference."""

    unit: str
    before: float
    after: float
    p: float


class Verdict(Record, kw_only=True):
    """Whether the gate opens, and on what that was decided.

    ``against`` says what the run was compared with. ``not_worse_p`` bounds the probability of such evidence where it
    were worse by the margin. ``comparison`` is None where nothing could be compared: then ``reason`` says what to do.
    """

    opens: bool
    reason: str
    against: str = ""
    comparison: Comparison | None = None
    costs: Costs | None = None
    not_worse_p: float | None = None

    def evidence(self) -> dict[str, Any]:
        """The numbers, as plain values."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def rules_of(run: RunRecord) -> PromoteConfig:
    """The section ``promote`` of a run's config. Raises `ConfigError`."""
    return decode_section(run.config.get("promote") or {}, PromoteConfig, at=f"run {run.id}: promote")


async def judge(
    store: Store,
    run: RunRecord,
    production: Promotion | None,
    rules: PromoteConfig,
    *,
    baseline: RunRecord | None = None,
) -> Verdict:
    """Compares the last evaluation of ``run`` with that of what is in production (None: with the run's first one), on
    the held-out tasks of both. ``baseline`` is a run whose last evaluation is of what is in production.
    """
    evaluations = await _evaluations(store, run)
    last = _ends(evaluations, max)
    if not last:
        return Verdict(opens=False, reason=f"run {run.id} was not evaluated: agl eval CONFIG evaluates what it made")
    if not await _is_of_published(store, run, last):
        return Verdict(
            opens=False,
            reason=f"the last evaluation of run {run.id} (step {last[0].step}) is of something else than what it "
            "published last: it must be evaluated after that",
        )
    against, others = await _others(store, run, evaluations, production, baseline)
    pair = _pair(others, last)
    if pair is None:
        return Verdict(opens=False, against=against, reason=_nothing_to_compare(run, against, production))
    first, second = pair
    comparison = compare(first, second)
    if comparison is None or comparison.n < rules.minimum:
        count = 0 if comparison is None else comparison.n
        return Verdict(
            opens=False,
            against=against,
            comparison=comparison,
            reason=f"only {count} held-out tasks were scored in both run {run.id} and {against}, and "
            f"promote.minimum is {rules.minimum}: evaluate on more (tasks.held_out), with agl eval, too",
        )
    return await _decide(store, comparison, first, second, against, rules)


async def _decide(
    store: Store, comparison: Comparison, first: Evaluation, second: Evaluation, against: str, rules: PromoteConfig
) -> Verdict:
    numbers = (
        f"{format_number(comparison.after)} after {format_number(comparison.before)} on {comparison.n} held-out tasks "
        f"(p {format_p(comparison.p)}, {comparison.test}), against {against}"
    )
    verdict = Verdict(opens=False, reason="", against=against, comparison=comparison)
    if comparison.difference > 0 and comparison.p <= rules.alpha:
        return msgspec.structs.replace(verdict, opens=True, reason=f"better: {numbers}")
    costs = _compare_costs(await _spending(store, first), await _spending(store, second))
    not_worse = _not_worse(first, second, rules)
    verdict = msgspec.structs.replace(verdict, costs=costs, not_worse_p=not_worse)
    cheaper = costs is not None and costs.after < costs.before and costs.p <= rules.alpha
    is_not_worse = not_worse is not None and not_worse <= rules.alpha / 2
    if costs is not None and cheaper and is_not_worse:
        reason = f"not worse by more than {rules.margin:g}, and cheaper ({_costs_in_words(costs)}): {numbers}"
        return msgspec.structs.replace(verdict, opens=True, reason=reason)
    lacking = "it is not shown to be better"
    if cheaper and costs is not None:
        lacking += f"; it is cheaper ({_costs_in_words(costs)}), but may be worse by {rules.margin:g}"
        lacking += _why_not_worse_is_unknown(not_worse, rules)
    return msgspec.structs.replace(verdict, reason=f"{lacking}: {numbers}")


def _not_worse(first: Evaluation, second: Evaluation, rules: PromoteConfig) -> float | None:
    """The p of "worse by the margin or more"; None where an outcome is out of its bounds."""
    before, after = _by_task(first), _by_task(second)
    low, high = rules.bounds
    pairs = [(before[id], after[id]) for id in before if before[id] is not None and after.get(id) is not None]
    values = np.array(pairs, np.float64)
    if bool(np.any((values < low) | (values > high))):
        return None
    return p_value((values[:, 1] - values[:, 0]) / (high - low), -min(rules.margin / (high - low), 0.99))


def _why_not_worse_is_unknown(not_worse: float | None, rules: PromoteConfig) -> str:
    low, high = rules.bounds
    return f" (an outcome is outside of promote.bounds, {low:g} to {high:g})" if not_worse is None else ""


async def _spending(store: Store, evaluation: Evaluation) -> Spending:
    shared = {task.id for task in evaluation.tasks}
    return await spending_of(store, [rollout for rollout in evaluation.rollouts if rollout.task_id in shared])


def _compare_costs(before: Spending, after: Spending) -> Costs | None:
    if before.unit != after.unit:
        return None
    shared = [task for task in before.by_task if task in after.by_task]
    if not shared:
        return None
    first = np.array([before.by_task[task] for task in shared])
    second = np.array([after.by_task[task] for task in shared])
    return Costs(unit=before.unit, before=float(first.mean()), after=float(second.mean()), p=sign_flip(second - first))


def _costs_in_words(costs: Costs) -> str:
    return f"{costs.after:.4g} after {costs.before:.4g} {costs.unit} a task, p {format_p(costs.p)}"


async def _others(
    store: Store,
    run: RunRecord,
    evaluations: Sequence[Evaluation],
    production: Promotion | None,
    baseline: RunRecord | None,
) -> tuple[str, list[Evaluation]]:
    """What the run is compared with: in words, and its evaluations, one a variant."""
    if baseline is not None:
        return f"the last evaluation of run {baseline.id}", _ends(await _evaluations(store, baseline), max)
    last = max(each.step for each in evaluations)
    begun = [each for each in _ends(evaluations, min) if each.step < last]
    if production is None:
        return "its own first evaluation", begun
    begun = [each for each in begun if _is_of(each, production)]
    if begun:
        return "its own first evaluation, of what is in production", begun
    before = await store.run(production.run_id)
    against = f"run {production.run_id}, which is in production"
    found = await _evaluations(store, before) if before is not None and before.id != run.id else []
    return against, _ends(found, max)


def _nothing_to_compare(run: RunRecord, against: str, production: Promotion | None) -> str:
    if production is None:
        return (
            f"run {run.id} was evaluated once, and nothing is in production: evaluate what the agent is now (agl eval) "
            "on the same tasks, and name that run with --baseline"
        )
    if production.run_id == run.id:
        return f"run {run.id} is in production already"
    return (
        f"run {run.id} and {against} were evaluated on no held-out task in common, in the same way: evaluate what is "
        "in production on the same tasks (agl eval), and name that run with --baseline"
    )


async def _evaluations(store: Store, run: RunRecord) -> list[Evaluation]:
    """A run's evaluations on its held-out tasks."""
    rollouts, tasks = await store.rollouts(run.id, purpose="evaluate"), await store.tasks(run.id)
    held_out = {task_identity(tasks[id]) for id in run.held_out if id in tasks}
    return [only_tasks(each, held_out) for each in evaluations_of(rollouts, tasks)]


def _ends(evaluations: Sequence[Evaluation], choose: Any) -> list[Evaluation]:
    """The evaluations of the first or the last step, by variant."""
    if not evaluations:
        return []
    step = choose(each.step for each in evaluations)
    return [each for each in evaluations if each.step == step]


def _pair(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation] | None:
    """Of the first variant that both have: the two, on the tasks that both have. One alone that is no variant is
    compared with whatever the other has."""
    for one in first:
        for other in second:
            if one.variant == other.variant or "" in (one.variant, other.variant):
                shared = on_shared_tasks(one, other)
                return shared if shared[0].tasks else None
    return None


def _by_task(evaluation: Evaluation) -> Mapping[str, float | None]:
    return {task.id: value for task, value in zip(evaluation.tasks, evaluation.rewards, strict=True)}


def _is_of(evaluation: Evaluation, production: Promotion) -> bool:
    """Whether all of it ran with what is in production, by the digests that its run knew that by."""
    return all(set(rollout.resources.values()) == set(production.published) for rollout in evaluation.rollouts)


async def _is_of_published(store: Store, run: RunRecord, evaluations: Sequence[Evaluation]) -> bool:
    """Whether evaluations ran with what their run published last: however that was sampled, wherever it was served."""
    published = {deployable(one, None).digest for one in await store.published(run)}
    known: dict[str, str] = {}
    for rollout in (rollout for each in evaluations for rollout in each.rollouts):
        for digest in rollout.resources.values():
            if digest not in known:
                resource = await store.resource(run.id, digest)
                known[digest] = deployable(resource, None).digest if resource is not None else digest
        if {known[digest] for digest in rollout.resources.values()} != published:
            return False
    return True
