"""No reward can end, hang or freeze a run: whatever it does is a `reward_error` of its own rollout."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest

from agentlightning import bounded as bounded_module
from agentlightning.plugins import Plugins
from agentlightning.records import Failure, Reward, Rollout, Task
from agentlightning.scoring import Scoring
from agentlightning.threads import run_on_process_loop

pytestmark = pytest.mark.timeout(30)

TASK = Task(id="t", input="1 + 1", expected="2")
LONG = int("9" * 400)
LONGER = 10**5000


class OwnError(BaseException):
    """An exception that `except Exception` does not catch."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def rollout(output: Any = "2", number: int = 0) -> Rollout:
    return Rollout(id=f"r{number}", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)


async def score(reward: Any, output: Any = "2", *, seconds: float = 20.0) -> tuple[Reward, Failure | None]:
    """On the loop that `fit` uses, in its thread: an interrupt in a main thread is the user's."""
    scoring = Scoring([reward], Plugins([])).score(rollout(output), TASK, [], seconds=seconds)
    rewards, failures = await asyncio.to_thread(run_on_process_loop, scoring)
    assert len(rewards) == 1
    assert len(failures) <= 1
    return rewards[0], failures[0] if failures else None


Act = Callable[[], Any]


def as_function(act: Act) -> Any:
    def reward(rollout: Rollout, task: Task) -> Any:
        return act()

    return reward


def as_coroutine(act: Act) -> Any:
    async def reward(rollout: Rollout, task: Task) -> Any:
        await asyncio.sleep(0)
        return act()

    return reward


def as_class(act: Act) -> Any:
    class Judge:
        Config = msgspec.defstruct("Config", [("strict", bool, True)])

        def __init__(self, config: Any) -> None:
            self.strict = config.strict

        def __call__(self, rollout: Rollout, task: Task) -> Any:
            return act() if self.strict else 1.0

    Judge.__name__ = "reward"
    return Judge


def as_function_that_gives_a_coroutine(act: Act) -> Any:
    def reward(rollout: Rollout, task: Task) -> Any:
        return as_coroutine(act)(rollout, task)

    return reward


EVERY_KIND = pytest.mark.parametrize(
    "kind", [as_function, as_coroutine, as_class, as_function_that_gives_a_coroutine], ids=lambda kind: kind.__name__
)

RAISED = [
    StopIteration("no"),
    StopAsyncIteration("no"),
    GeneratorExit("no"),
    KeyboardInterrupt("no"),
    SystemExit(2),
    asyncio.CancelledError("no"),
    concurrent.futures.CancelledError("no"),
    TimeoutError("no"),
    OwnError("no"),
    UnprintableError(),
    BaseExceptionGroup("several", [SystemExit(1)]),
]


@EVERY_KIND
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_an_exception_of_any_type_is_a_reward_error(kind: Any, error: BaseException) -> None:
    def act() -> None:
        raise error

    reward, failure = await score(kind(act))
    assert reward.value is None
    assert failure is not None
    assert (failure.type, failure.fault) == ("reward_error", "infrastructure")
    assert failure.message.startswith("reward 'reward' raised ")
    assert type(error).__name__ in failure.message


async def test_next_on_nothing_is_a_reward_error() -> None:
    def first_line(rollout: Rollout, task: Task) -> float:
        return float(next(line for line in rollout.output.splitlines() if line.startswith("Answer")))

    reward, failure = await score(first_line)
    assert reward.value is None
    assert failure is not None
    assert "StopIteration" in failure.message


async def test_many_rollouts_of_a_group_may_fail_so_at_once() -> None:
    def odd_ones_exit(rollout: Rollout, task: Task) -> float:
        if int(rollout.id[1:]) % 2:
            raise SystemExit(1)
        return 1.0

    scoring = Scoring([odd_ones_exit], Plugins([]))
    scored = await asyncio.gather(*(scoring.score(rollout(number=n), TASK, []) for n in range(32)))
    assert [rewards[0].value for rewards, _ in scored] == [1.0, None] * 16


def blocks() -> None:
    threading.Event().wait()


def is_busy() -> None:
    while True:
        pass


@pytest.mark.parametrize("act", [blocks, is_busy], ids=lambda act: act.__name__)
@pytest.mark.parametrize("kind", [as_function, as_class])
async def test_a_reward_that_never_returns_ends_at_its_limit(kind: Any, act: Act) -> None:
    reward, failure = await score(kind(act), seconds=0.3)
    assert reward.value is None
    assert failure is not None
    assert failure.message == "reward 'reward' took longer than runner.reward_timeout = 0.3 s"


async def test_a_coroutine_that_never_returns_ends_at_its_limit() -> None:
    async def waits(rollout: Rollout, task: Task) -> float:
        await asyncio.Event().wait()
        return 1.0

    reward, failure = await score(waits, seconds=0.1)
    assert reward.value is None
    assert failure is not None
    assert failure.message == "reward 'waits' took longer than runner.reward_timeout = 0.1 s"


async def test_a_coroutine_that_swallows_its_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_module, "GRACE_SECONDS", 0.05)
    given_up = threading.Event()

    async def stubborn(rollout: Rollout, task: Task) -> float:
        while not given_up.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return 1.0

    _, failure = await score(stubborn, seconds=0.1)
    given_up.set()
    assert failure is not None
    assert "took longer than" in failure.message


async def test_the_reward_of_a_long_number_is_a_reward_error() -> None:
    def distance(rollout: Rollout, task: Task) -> float:
        return -abs(int(rollout.output) - 2)

    for digits, what in ((400, "expected a finite number"), (5000, "Exceeds the limit")):
        reward, failure = await score(distance, "9" * digits)
        assert reward.value is None
        assert reward.reason is not None
        assert what in reward.reason
        assert failure is not None
        assert len(failure.message) < 400


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (np.float16(0.25), 0.25),
        (np.int64(-3), -3.0),
        (np.array(True), 1.0),
        (1e12, 1e12),
        (-1e12, -1e12),
        (5e-324, 5e-324),
    ],
)
async def test_numbers_of_other_types_are_numbers(given: Any, value: float) -> None:
    reward, failure = await score(as_function(lambda: given))
    assert reward.value == value
    assert failure is None


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class OddNumber(float):
    def __float__(self) -> float:
        raise SystemError("no number")


class OddMapping(dict[str, float]):
    def items(self) -> Any:
        raise LookupError("no items")


@EVERY_KIND
@pytest.mark.parametrize(
    "given",
    [
        *(LONG, -LONG, LONGER, 1e308, -1e13, np.float64("nan"), Decimal("NaN"), Decimal("sNaN"), Decimal("1e400"), 1j),
        *(Odd(), OddNumber(), OddMapping(a=1.0), b"1", "x" * 10**6, [1.0] * 10**5, np.array([1.0]), {"a": LONGER}),
    ],
    ids=lambda given: type(given).__name__,
)
async def test_what_is_no_reasonable_number_is_a_short_reward_error(kind: Any, given: Any) -> None:
    reward, failure = await score(kind(lambda: given))
    assert reward.value is None
    assert reward.reason
    assert failure is not None
    assert failure.type == "reward_error"
    assert len(failure.message) < 300


def test_a_sum_that_is_not_finite_is_no_reward() -> None:
    parts = [Reward(name=name, value=1e308) for name in "ab"]
    assert msgspec.structs.replace(rollout(), rewards=parts).outcome is None
    assert not msgspec.structs.replace(rollout(), rewards=parts, status="succeeded").is_scorable
