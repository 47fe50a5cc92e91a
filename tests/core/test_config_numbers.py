"""A number that makes no sense is refused before a run is made, with its path, the limit and the value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from config_numbers import numbers_of, outside, section

from agentlightning import Trainer
from agentlightning.algorithm import Algorithm
from agentlightning.config import (
    Config,
    NonNegative,
    Positive,
    PositiveInt,
    RewardConfig,
    RunnerConfig,
    decode_section,
    load_config,
    validated,
)
from agentlightning.errors import ConfigError
from agentlightning.plugins import Plugins
from agentlightning.scoring import Scoring

MINIMAL: dict[str, Any] = {"agent": "a:b", "tasks": {"train": "t.jsonl"}, "algorithm": {"name": "grpo"}}
NUMBERS = numbers_of(Config)
WRONG = [(text, path, value) for text, path, number in NUMBERS for value in outside(number)]


def test_every_number_has_a_range() -> None:
    assert {text for text, _, _ in NUMBERS} == {
        *("tasks.limit", "tasks.held_out_limit", "reward.weight", "seed", "budget", "compare.alpha", "compare.samples"),
        *("promote.alpha", "promote.margin", "promote.minimum", "promote.enough"),
        *("promote.bounds[0]", "promote.bounds[1]"),
        *("runner.concurrency", "runner.timeout", "runner.reward_timeout", "runner.retries"),
    }
    for text, _, number in NUMBERS:
        assert (number.ge, number.gt) != (None, None), text


@pytest.mark.parametrize(("text", "path", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(text: str, path: Any, value: Any) -> None:
    given = section(path, value)
    for key, rest in (("tasks", {"train": "t"}), ("reward", {"name": "r"})):
        if key in given:
            given[key] |= rest
    with pytest.raises(ConfigError) as caught:
        decode_section({**MINIMAL, **given}, Config)
    assert str(caught.value).startswith(f"{text}: ")
    assert "expected" in str(caught.value) or "out of range" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("runner.concurrency=0", "runner.concurrency: expected int >= 1, got 0"),
        ("runner.timeout=-2.5", "runner.timeout: expected float > 0.0, got -2.5"),
        ("runner.reward_timeout=.inf", "runner.reward_timeout: expected a finite number, got inf"),
        ("runner.retries=.nan", "runner.retries: expected a finite number, got nan"),
        ("runner.concurrency=yes", "runner.concurrency: expected int, got bool"),
        ("reward={name: a, weight: 1e300}", "reward.weight: expected float <= 1000000.0, got 1e+300"),
        ("algorithm.model.lora.alpha=.nan", "algorithm.model.lora.alpha: expected a finite number, got nan"),
        ("algorithm.betas=[0.9, .inf]", "algorithm.betas[1]: expected a finite number, got inf"),
        ("seed=-1", "seed: expected int >= 0, got -1"),
    ],
)
def test_the_message_has_path_limit_and_value(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("agent: a:b\ntasks: t.jsonl\nalgorithm: {name: grpo}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert str(caught.value) == f"{path}: {message}"


class OwnConfig(msgspec.Struct, forbid_unknown_fields=True):
    lr: Positive = 1.0
    steps: PositiveInt = 1
    beta: NonNegative = 0.0


class Own(Algorithm):
    Config = OwnConfig

    async def run(self, run: Any) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runner": RunnerConfig(concurrency=0)}, r"^runner\.concurrency: expected int >= 1, got 0$"),
        ({"runner": RunnerConfig(timeout=math.nan)}, r"^runner\.timeout: expected a finite number, got nan$"),
        ({"seed": -1}, r"^seed: expected int >= 0, got -1$"),
        ({"seed": 1.5}, r"^seed: expected int, got float$"),
        ({"reward": RewardConfig(name="a:b", weight=math.inf)}, r"^reward\.weight: expected a finite number, got inf$"),
    ],
)
def test_what_is_made_in_python_is_checked_as_well(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    options = {"reward": lambda rollout, task: 1.0, "algorithm": Own(OwnConfig()), **options}
    with pytest.raises(ConfigError, match=message):
        Trainer(lambda task: task, [1, 2, 3], store=f"sqlite:///{tmp_path / 'store.db'}", **options)
    assert not (tmp_path / "store.db").exists()


@pytest.mark.parametrize("config", [OwnConfig(lr=0.0), OwnConfig(steps=0), OwnConfig(beta=math.nan)])
def test_an_algorithm_refuses_a_config_of_its_own_that_makes_no_sense(config: OwnConfig) -> None:
    with pytest.raises(ConfigError, match=r"^algorithm\.(lr|steps|beta): expected"):
        Own(config)


def test_a_config_that_holds_objects_is_as_it_was_made() -> None:
    class Holding(msgspec.Struct):
        thing: Any

    config = Holding(thing=object())
    assert validated(config, at="algorithm") is config


def test_the_place_in_a_list_of_rewards_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^reward\[1\]\.weight: expected float >= -1000000.0, got -1e\+300$"):
        Scoring([lambda rollout, task: 1.0, RewardConfig(name="a:b", weight=-1e300)], Plugins([]))
