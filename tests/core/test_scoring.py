"""Rewards composed: names, weights, components, and failures with a type."""

from __future__ import annotations

import math
import threading
from typing import Any

import msgspec
import numpy as np
import pytest

from agentlightning.config import RewardConfig
from agentlightning.errors import ConfigError, PluginError
from agentlightning.plugins import Plugins
from agentlightning.records import Failure, Reward, Rollout, Span, Task
from agentlightning.scoring import Scoring

TASK = Task(id="t", input="1 + 1", expected="2")
ROLLOUT = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output="2")
SPANS = [Span(rollout_id="r", kind="tool", name="calculator")]


class RewardsByName(Plugins):
    """Plugins whose rewards are those of this file."""

    def __init__(self) -> None:
        super().__init__([])

    def find(self, kind: str, name: str) -> Any:
        return globals()[name.rpartition(":")[2]]


def exact(rollout: Rollout, task: Task) -> bool:
    return bool(rollout.output == task.expected)


async def calls(rollout: Rollout, task: Task, spans: list[Span]) -> int:
    return len(spans)


class ShortConfig(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 10


class Short:
    Config = ShortConfig

    def __init__(self, config: ShortConfig) -> None:
        self.limit = config.limit

    def __call__(self, rollout: Rollout, task: Task) -> float:
        return float(len(rollout.output) <= self.limit)


async def score(*rewards: Any) -> tuple[list[Reward], list[Failure]]:
    return await Scoring(rewards, RewardsByName()).score(ROLLOUT, TASK, SPANS)


def values(rewards: list[Reward]) -> dict[str, float | None]:
    return {reward.name: reward.value for reward in rewards}


async def test_functions_coroutines_and_classes_score_side_by_side() -> None:
    rewards, failures = await score(exact, calls, Short, "some.module:exact")
    assert values(rewards) == {"exact": 1.0, "calls": 1.0, "Short": 1.0, "exact-2": 1.0}
    assert all(type(reward.value) is float for reward in rewards)
    assert failures == []


async def test_weights_make_the_outcome() -> None:
    rewards, _ = await score(RewardConfig(name="exact", weight=2.0), RewardConfig(name="calls", weight=-0.5))
    assert msgspec.structs.replace(ROLLOUT, rewards=rewards).outcome == 1.5


async def test_a_class_gets_its_config() -> None:
    rewards, _ = await score(RewardConfig(name="Short", config={"limit": 0}), Short)
    assert values(rewards) == {"Short": 0.0, "Short-2": 1.0}


async def test_a_dict_gives_a_component_for_each_key_of_the_same_weight() -> None:
    def parts(rollout: Rollout, task: Task) -> dict[str, float | None]:
        return {"right": 1, "short": 0.5, "polite": None}

    rewards, failures = await score(parts)
    assert values(rewards) == {"parts.right": 1.0, "parts.short": 0.5, "parts.polite": None}
    assert failures == []


async def test_a_reward_may_say_why_and_of_which_step() -> None:
    def judge(rollout: Rollout, task: Task, spans: list[Span]) -> list[Reward]:
        return [
            Reward(name="right", value=1, weight=0.5, reason="the sum is right"),
            Reward(name="used", value=True, span_id=spans[0].id),
        ]

    rewards, failures = await score(RewardConfig(name="exact"), judge)
    assert failures == []
    exact, right, used = rewards
    assert exact == msgspec.structs.replace(exact, name="exact", value=1.0, reason=None, step=False)
    assert (right.name, right.value, right.weight, right.reason) == ("judge.right", 1.0, 0.5, "the sum is right")
    assert (used.name, used.value, used.step, used.span_id) == ("judge.used", 1.0, True, SPANS[0].id)
    rollout = msgspec.structs.replace(ROLLOUT, rewards=rewards)
    assert (rollout.outcome, rollout.total_reward) == (1.5, 2.5)


async def test_one_reward_is_as_good_as_a_list_and_its_weight_is_times_the_configs() -> None:
    rewards, _ = await score(RewardConfig(name="explained", weight=4.0))
    (reward,) = rewards
    assert (reward.name, reward.value, reward.weight, reward.reason) == ("explained", None, 2.0, "no answer")


def explained(rollout: Rollout, task: Task) -> Reward:
    return Reward(name="explained", value=None, weight=0.5, reason="no answer")


async def test_no_reward_for_any_step_is_no_failure() -> None:
    rewards, failures = await score(lambda rollout, task: [])
    assert (rewards, failures) == ([], [])


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (Reward(name="x", value=math.nan), "reward 'odd.x' gave nan"),
        (Reward(name="x", value="good"), "reward 'odd.x' gave str 'good'"),  # type: ignore[arg-type]
        (Reward(name="x", value=1.0, weight=math.inf), "reward 'odd.x' gave inf"),
        (Reward(name="x", value=1.0, span_id="of another"), "reward 'odd.x' names the span 'of another', which its"),
        (Reward(name="x", value=1.0, step=True), "reward 'odd.x' is of a step and names no span"),
    ],
    ids=["nan", "text", "infinite weight", "a span of another rollout", "no span"],
)
async def test_a_reward_that_makes_no_sense_is_a_failure_and_never_zero(reward: Reward, message: str) -> None:
    def odd(rollout: Rollout, task: Task) -> Reward:
        return reward

    (kept,), (failure,) = await score(odd)
    assert (kept.value, kept.step) == (None, False)
    assert failure.message.startswith(message)


async def test_none_stays_none_and_is_no_failure() -> None:
    rewards, failures = await score(lambda rollout, task: None)
    assert values(rewards) == {"reward": None}
    assert failures == []
    assert msgspec.structs.replace(ROLLOUT, rewards=rewards).outcome is None


@pytest.mark.parametrize(
    ("given", "value"),
    [(True, 1.0), (False, 0.0), (3, 3.0), (np.float32(0.5), 0.5), (np.bool_(True), 1.0), (np.array(2.0), 2.0)],
)
async def test_every_number_is_a_float(given: Any, value: float) -> None:
    rewards, _ = await score(lambda rollout, task: given)
    assert rewards[0].value == value
    assert type(rewards[0].value) is float


@pytest.mark.parametrize("given", [math.nan, -math.inf, "1.0", [1.0], {}, np.ones(2)], ids=repr)
async def test_what_is_no_number_is_a_failure_and_never_zero(given: Any) -> None:
    def odd(rollout: Rollout, task: Task) -> Any:
        return given

    rewards, (failure,) = await score(odd, exact)
    assert values(rewards) == {"odd": None, "exact": 1.0}
    assert failure.type == "reward_error"
    assert failure.fault == "infrastructure"
    assert failure.exception == "agentlightning.errors.RewardError"
    assert failure.message.startswith("reward 'odd' gave ")


async def test_a_bad_component_leaves_the_others() -> None:
    def parts(rollout: Rollout, task: Task) -> dict[str, float]:
        return {"right": 1.0, "ratio": math.nan}

    rewards, (failure,) = await score(parts)
    assert values(rewards) == {"parts.right": 1.0, "parts.ratio": None}
    assert failure.message.startswith("reward 'parts.ratio' gave nan")


async def test_a_reward_that_raises_is_a_failure_that_names_it_and_the_line() -> None:
    def fragile(rollout: Rollout, task: Task) -> float:
        return 1 / 0

    rewards, (failure,) = await score(fragile, exact)
    assert values(rewards) == {"fragile": None, "exact": 1.0}
    assert rewards[0].reason == "ZeroDivisionError: division by zero"
    assert failure.exception == "builtins.ZeroDivisionError"
    assert "reward 'fragile' raised ZeroDivisionError: division by zero (" in failure.message
    assert "test_scoring.py" in failure.message
    assert failure.traceback is not None
    assert "return 1 / 0" in failure.traceback


async def test_a_sync_reward_that_blocks_does_not_block_the_loop() -> None:
    opened = threading.Event()

    def waits(rollout: Rollout, task: Task) -> float:
        return float(opened.wait(30))

    async def opens(rollout: Rollout, task: Task) -> float:
        opened.set()
        return 1.0

    rewards, _ = await score(waits, opens)
    assert values(rewards) == {"waits": 1.0, "opens": 1.0}


def only_rollout(rollout: Rollout) -> float:
    return 1.0


def three(rollout: Rollout, task: Task, model: str) -> float:
    return 1.0


class NotCallable:
    pass


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        (only_rollout, PluginError, "reward 'only_rollout' takes .*: expected \\(rollout, task\\) or"),
        (three, PluginError, "reward 'three' takes .*: expected"),
        (NotCallable, PluginError, "the reward 'NotCallable' makes a NotCallable, which cannot be called"),
        (
            RewardConfig(name="exact", config={"a": 1}),
            ConfigError,
            "reward.config: .* is a function and takes no",
        ),
        (RewardConfig(name="Short", config={"limt": 1}), ConfigError, "reward.config.limt: .* did you mean limit"),
        (RewardConfig(name="Short", config={"limit": "a"}), ConfigError, "reward.config.limit: expected int, got str"),
    ],
)
def test_what_cannot_score_is_refused_before_anything_runs(reward: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Scoring([reward], RewardsByName())


def test_an_error_names_the_place_in_the_list() -> None:
    with pytest.raises(ConfigError, match=r"reward\[1\].config.limt"):
        Scoring([exact, RewardConfig(name="Short", config={"limt": 1})], RewardsByName())


def test_an_unknown_name_is_a_plugin_error() -> None:
    with pytest.raises(PluginError, match=r"reward 'exact_match' is not installed: pip install \S+rewards/standard"):
        Scoring(["exact_match"], Plugins([]))


async def test_what_a_reward_counted_is_kept_with_it() -> None:
    def judged(rollout: Rollout, task: Task) -> Reward:
        return Reward(name="judge", value=0.5, metrics={"calls": np.int64(2), "dollars": 0.25})

    (reward,) = (await Scoring([judged], Plugins([])).score(ROLLOUT, TASK, SPANS)).rewards
    assert reward.metrics == {"calls": 2.0, "dollars": 0.25}


async def test_what_a_reward_counted_must_be_finite() -> None:
    def judged(rollout: Rollout, task: Task) -> Reward:
        return Reward(name="judge", value=0.5, metrics={"dollars": math.nan})

    scored = await Scoring([judged], Plugins([])).score(ROLLOUT, TASK, SPANS)
    assert [failure.type for failure in scored.failures] == ["reward_error"]
