"""Before and after: the same held-out tasks, compared task by task. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec
import numpy as np

from agentlightning.algorithm import Evaluation
from agentlightning.records import Purpose, Record, Rollout, Task

MAX_EXACT = 16
"""Up to so many tasks that changed, every one of their 2^n sign patterns is counted."""
PERMUTATIONS = 100_000
BOOTSTRAPS = 10_000


class Comparison(Record, kw_only=True):
    """The first evaluation of one variant, ``before``, against the last, ``after``, over the ``n`` tasks that both
    could score.

    ``low`` and ``high`` bound the mean difference with 95 % confidence, and are None where the tasks do not vary (a
    single one, say): no interval follows from them. ``p`` is two-sided, of ``test``.
    ``left_out`` counts the tasks that one of the two could not score.
    """

    variant: str
    n: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    p: float
    test: str
    left_out: int = 0


def compare_evaluations(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """One comparison per variant, of the lowest step that it was evaluated at with the highest."""
    variants: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        variants.setdefault(evaluation.variant, []).append(evaluation)
    comparisons = []
    for members in variants.values():
        before, after = ends(members)
        comparison = compare(before, after) if after is not None else None
        if comparison is not None:
            comparisons.append(comparison)
    return comparisons


def ends(evaluations: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation | None]:
    """The evaluations (at least one, of one variant) of the lowest and of the highest step; None for the second where
    all are of one step."""
    before, after = (choose(evaluations, key=lambda one: one.step) for choose in (min, max))
    return before, after if after.step > before.step else None


def compare(before: Evaluation, after: Evaluation) -> Comparison | None:
    """Pairs two evaluations by task; None when no task was scored by both.

    Rewards that are all 0 or 1 are compared by McNemar's exact test (McNemar 1947; the two-sided binomial
    test of the tasks that changed), others by the sign-flip permutation test of the mean difference (Fisher
    1935). The interval is the percentile bootstrap over tasks (Efron & Tibshirani 1993, section 13.3).
    """
    with np.errstate(over="ignore", invalid="ignore"):  # rewards may be as large as a float can be
        return _compare(before, after)


def _compare(before: Evaluation, after: Evaluation) -> Comparison | None:
    earlier, later = _by_task(before), _by_task(after)
    paired = [id for id, value in earlier.items() if value is not None and later.get(id) is not None]
    if not paired:
        return None
    first = np.array([earlier[id] for id in paired], np.float64)
    second = np.array([later[id] for id in paired], np.float64)
    difference = second - first
    binary = bool(np.isin(np.concatenate([first, second]), (0.0, 1.0)).all())
    varies = bool(np.ptp(difference) > 0)
    low, high = bootstrap_interval(difference) if varies else (None, None)
    return Comparison(
        variant=before.variant,
        n=len(paired),
        before=float(first.mean()),
        after=float(second.mean()),
        difference=float(difference.mean()),
        low=low,
        high=high,
        p=mcnemar_exact(int((difference > 0).sum()), int((difference < 0).sum())) if binary else sign_flip(difference),
        test="McNemar, exact" if binary else "sign-flip permutation",
        left_out=len(earlier.keys() | later.keys()) - len(paired),
    )


def _by_task(evaluation: Evaluation) -> dict[str, float | None]:
    return {task.id: value for task, value in zip(evaluation.tasks, evaluation.rewards, strict=True)}


def on_shared_tasks(one: Evaluation, other: Evaluation) -> tuple[Evaluation, Evaluation]:
    """The two on those tasks that both have: of the same id, input and expected answer."""
    shared = {task_identity(task) for task in one.tasks} & {task_identity(task) for task in other.tasks}
    return only_tasks(one, shared), only_tasks(other, shared)


def only_tasks(evaluation: Evaluation, identities: Set[bytes]) -> Evaluation:
    """The evaluation on those of its tasks that have one of these identities."""
    kept = [index for index, task in enumerate(evaluation.tasks) if task_identity(task) in identities]
    return msgspec.structs.replace(
        evaluation,
        tasks=[evaluation.tasks[index] for index in kept],
        rewards=[evaluation.rewards[index] for index in kept],
    )


def task_identity(task: Task) -> bytes:
    """What makes two runs' tasks the same."""
    return msgspec.json.encode([task.id, task.input, task.expected], enc_hook=repr)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided p of ``gained`` against ``lost`` changes, each as likely as the other under the null."""
    changed = gained + lost
    tail = sum(math.comb(changed, count) for count in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**changed))


def sign_flip(difference: np.ndarray) -> float:
    """Two-sided p of the mean of paired differences (N,) under random signs.

    Exact up to `MAX_EXACT` differences that are not zero; beyond, `PERMUTATIONS` random patterns of a fixed
    seed, the observed one counted among them, so p is never 0.
    """
    changed = difference[difference != 0]
    if not len(changed):
        return 1.0
    least = abs(changed.sum()) * (1 - 1e-12)
    if len(changed) <= MAX_EXACT:
        patterns = np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed)) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ changed) >= least).mean())
    rng = np.random.default_rng(0)
    extreme = 0
    for start in range(0, PERMUTATIONS, 10_000):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (min(10_000, PERMUTATIONS - start), len(changed)), np.int8)
        extreme += int((np.abs(signs @ changed) >= least).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)


def bootstrap_interval(difference: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of paired differences (N,), of a fixed seed."""
    rng, count = np.random.default_rng(0), len(difference)
    draws = (rng.integers(0, count, (BOOTSTRAPS // 100, count)) for _ in range(100))
    means = np.concatenate([difference[drawn].mean(axis=1) for drawn in draws])
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def evaluations_of(
    rollouts: Iterable[Rollout], tasks: Mapping[str, Task], *, purpose: Purpose = "evaluate"
) -> list[Evaluation]:
    """The evaluations of a purpose that a run's rollouts belong to, in the order they were asked for."""
    found: dict[tuple[int, str], list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.purpose == purpose:
            found.setdefault((rollout.step, rollout.variant), []).append(rollout)
    return [
        evaluation_of(members, tasks, step=step, variant=variant, purpose=purpose)
        for (step, variant), members in found.items()
    ]


def evaluation_of(
    rollouts: Sequence[Rollout],
    tasks: Mapping[str, Task],
    *,
    step: int,
    variant: str,
    purpose: Purpose = "evaluate",
) -> Evaluation:
    """One evaluation from its rollouts: each task's reward is the mean of those that could be scored."""
    samples: dict[str, list[float]] = {}
    for rollout in rollouts:
        scored = samples.setdefault(rollout.task_id, [])
        if rollout.is_scorable and rollout.outcome is not None:
            scored.append(rollout.outcome)
    return Evaluation(
        step=step,
        variant=variant,
        purpose=purpose,
        tasks=[tasks.get(id) or Task(id=id, input=None) for id in samples],
        rollouts=list(rollouts),
        rewards=[sum(values) / len(values) if values else None for values in samples.values()],
    )
