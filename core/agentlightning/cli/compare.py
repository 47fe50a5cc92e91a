"""Two runs, compared on the tasks that both were evaluated on. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from agentlightning.algorithm import Evaluation
from agentlightning.errors import DataError
from agentlightning.report import Comparison, compare, on_shared_tasks, task_identity


def compare_runs(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> list[Comparison]:
    """The last evaluations of two runs, paired by task; a comparison for each variant that both have.

    A run with one evaluation that is no variant (an agent with its own model) is compared with every variant of the
    other. Raises `DataError` where the two have no task, or no variant, in common.
    """
    earlier, later = _last(first), _last(second)
    variants = [variant for variant in earlier if variant in later]
    if not variants and ("" in earlier or "" in later):
        variants = [variant for variant in {**earlier, **later} if variant]
    comparisons = []
    for variant in variants:
        one, other = earlier.get(variant) or earlier.get(""), later.get(variant) or later.get("")
        if one is not None and other is not None:
            comparison = compare(*on_shared_tasks(one, other))
            if comparison is not None:
                comparisons.append(msgspec.structs.replace(comparison, variant=variant))
    if not comparisons:
        raise DataError(
            "the two runs cannot be compared: they were evaluated on no task, with the same input and expected answer, "
            f"in the same way ({_ways(earlier)}; {_ways(later)}); `agl eval` evaluates on the tasks of a config"
        )
    return comparisons


def unshared(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> int:
    """How many tasks only one of the two runs was evaluated on."""
    one, other = (
        {task_identity(task) for run in _last(runs).values() for task in run.tasks} for runs in (first, second)
    )
    return len(one ^ other)


def _last(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """By variant, the evaluation of the highest step."""
    return {each.variant: each for each in sorted(evaluations, key=lambda each: each.step)}


def _ways(evaluations: Mapping[str, Evaluation]) -> str:
    if not evaluations:
        return "one has no evaluation"
    return ", ".join(f"{variant or 'no variant'}: {len(each.tasks)} tasks" for variant, each in evaluations.items())
