"""Before and after: what is paired, what is tested, what is shown."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest
from rich.console import Console

from agentlightning.algorithm import Evaluation
from agentlightning.cli.tables import comparisons_table
from agentlightning.records import Failure, Purpose, Reward, Rollout, Task
from agentlightning.report import (
    Comparison,
    bootstrap_interval,
    compare,
    compare_evaluations,
    evaluations_of,
    mcnemar_exact,
    sign_flip,
)

# scipy 1.17.1: binomtest(gained, gained + lost).pvalue
MCNEMAR = [
    (8, 2, 0.109375),
    (2, 8, 0.109375),
    (25, 5, 0.0003249142318964005),
    (70, 3, 1.3742686052727396e-17),
    (5, 5, 1.0),
    (0, 0, 1.0),
]

FEW = [0.25, 0.5, -0.25, 0.75, 0.0, 0.5, 0.25, 1.0, -0.5, 0.25]
MANY = [
    *(0.15, 0.3, 0.01, -0.3, -0.08, -0.35, 0.18, 0.82, -0.1, -0.16, 0.39, 0.33, 0.2, -0.32, 0.14, 0.5, -0.52, -0.08),
    *(-0.8, -0.49, -0.77, 0.03, -0.48, 0.29, 0.23, 0.06, -1.11, -0.12, 0.13, 0.21, -0.62, -0.09, -0.34, -0.25, 0.68),
    *(-0.25, 0.13, 0.59, -0.14, 0.09),
]


def evaluation(rewards: list[float | None], step: int = 0, variant: str = "", *, first: int = 0) -> Evaluation:
    tasks = [Task(id=str(number), input=None) for number in range(first, first + len(rewards))]
    return Evaluation(step=step, variant=variant, tasks=tasks, rollouts=[], rewards=rewards)


@pytest.mark.parametrize(("gained", "lost", "p"), MCNEMAR)
def test_mcnemar_is_scipys_binomial_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar_exact(gained, lost) == pytest.approx(p, rel=1e-12)


def test_few_differences_are_flipped_in_every_way() -> None:
    # scipy 1.17.1: permutation_test((FEW,), mean, permutation_type="samples", n_resamples=inf).pvalue
    assert sign_flip(np.array(FEW)) == pytest.approx(0.12109375, rel=1e-12)


def test_many_differences_are_flipped_at_random() -> None:
    # scipy 1.17.1: the same with n_resamples=2_000_000, rng 1; three standard errors of 100,000 flips are 0.0047
    assert sign_flip(np.array(MANY)) == pytest.approx(0.46959, abs=0.005)


def test_flipping_zeros_and_ones_is_mcnemar() -> None:
    difference = np.array([1.0] * 8 + [-1.0] * 2 + [0.0] * 30)
    assert sign_flip(difference) == pytest.approx(mcnemar_exact(8, 2))


def test_a_random_p_is_never_zero() -> None:
    assert 0 < sign_flip(np.full(80, 0.3)) < 1e-4


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    # scipy 1.17.1: bootstrap((MANY,), mean, method="percentile", n_resamples=200_000, rng 1)
    low, high = bootstrap_interval(np.array(MANY))
    assert (low, high) == (pytest.approx(-0.1745, abs=0.005), pytest.approx(0.0765, abs=0.005))


def test_zeros_and_ones_are_compared_by_mcnemar() -> None:
    result = compare(evaluation([0.0] * 10 + [1.0] * 2), evaluation([1.0] * 8 + [0.0] * 4, 1))
    assert result is not None
    assert (result.n, result.test) == (12, "McNemar, exact")
    assert (result.before, result.after) == (pytest.approx(2 / 12), pytest.approx(8 / 12))
    assert result.difference == pytest.approx(0.5)
    assert result.p == pytest.approx(0.109375)


def test_other_rewards_are_compared_by_sign_flips() -> None:
    result = compare(evaluation([0.0] * 10), evaluation(list(FEW), 1))
    assert result is not None
    assert result.test == "sign-flip permutation"
    assert result.p == pytest.approx(0.12109375)
    assert result.low < result.difference < result.high


def test_tasks_are_paired_by_id_and_those_not_scored_twice_are_counted() -> None:
    before = evaluation([0.0, None, 1.0, 0.0])
    after = evaluation([1.0, 1.0, None, 1.0], 1, first=1)
    result = compare(before, after)
    assert result is not None
    assert (result.n, result.left_out) == (1, 4)
    assert (result.before, result.after) == (1.0, 1.0)


def test_nothing_scored_twice_is_no_comparison() -> None:
    assert compare(evaluation([None, 1.0]), evaluation([1.0, None], 1)) is None


def test_the_first_and_the_last_evaluation_of_each_variant_are_compared() -> None:
    found = compare_evaluations(
        [
            evaluation([0.0, 0.0], 0, ""),
            evaluation([0.5, 0.5], 1, ""),
            evaluation([1.0, 0.0], 0, "greedy"),
            evaluation([0.0, 0.0], 0, "never again"),
            evaluation([1.0, 1.0], 1, "greedy"),
            evaluation([1.0, 0.0], 2, ""),
        ]
    )
    assert [(it.variant, it.before, it.after) for it in found] == [("", 0.0, 0.5), ("greedy", 0.5, 1.0)]


def test_evaluations_come_back_from_rollouts() -> None:
    def ended(purpose: Purpose, step: int, variant: str, task: str, value: float | None, **fields: object) -> Rollout:
        return Rollout(
            id=f"{purpose}{task}{value}",
            run_id="run",
            group_id=task,
            task_id=task,
            purpose=purpose,
            step=step,
            variant=variant,
            status="succeeded",
            rewards=[Reward(name="x", value=value)],
            **fields,  # type: ignore[arg-type]
        )

    broken = Failure(type="timeout", message="", fault="infrastructure")
    found = evaluations_of(
        [
            ended("evaluate", 0, "greedy", "a", 1.0),
            ended("evaluate", 0, "greedy", "a", 0.5),
            ended("evaluate", 0, "greedy", "b", None),
            ended("evaluate", 0, "greedy", "c", 1.0, failure=broken),
            ended("train", 1, "", "a", 0.0),
        ],
        {"a": Task(id="a", input="the input")},
    )
    (before,) = found
    assert (before.step, before.variant) == (0, "greedy")
    assert before.rewards == [0.75, None, None]
    assert before.tasks[0].input == "the input"


def test_the_table_fits_a_terminal_of_a_hundred_columns() -> None:
    pairs = [evaluation([0.0] * 100, 0, v) for v in ("", "greedy")]
    pairs += [evaluation([1.0] * 100, 1, v) for v in ("", "greedy")]
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparisons_table(compare_evaluations(pairs)))
    text = console.export_text()
    assert "1.6e-30" in text
    assert "McNemar, exact" in text
    assert "greedy" in text
    assert "…\n" not in text


# What the table says.


def shown(result: Comparison, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(comparisons_table([result]))
    return capture.get()


def test_a_single_task_is_a_point_and_never_looks_like_an_interval() -> None:
    result = compare(evaluation([0.0]), evaluation([1.0]))
    assert result is not None
    assert (result.low, result.high) == (None, None)
    assert "…" not in shown(result)


def test_tasks_that_all_change_alike_give_no_interval() -> None:
    result = compare(evaluation([0.0] * 30), evaluation([0.5] * 30))
    assert result is not None
    assert (result.difference, result.low) == (0.5, None)


@pytest.mark.parametrize("width", [80, 60])
def test_the_table_fits_the_terminal(width: int) -> None:
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 128).astype(float), rng.integers(0, 2, 128).astype(float)
    result = compare(evaluation(before.tolist()), evaluation(after.tolist()))
    assert result is not None
    text = shown(msgspec.structs.replace(result, variant="sampled", p=1.2e-25), width)
    assert max(map(len, text.splitlines())) <= width
    assert f"{result.low:+.3f} … {result.high:+.3f} 1.2e-25" in text


def test_rewards_as_large_as_a_float_can_be_are_compared() -> None:
    result = compare(evaluation([1e308, -1e308, 0.0]), evaluation([-1e308, 1e308, 1e308]))
    assert result is not None
    assert shown(result)
