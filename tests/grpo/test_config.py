"""The numbers of a loss and of an advantage: each has a range."""

from __future__ import annotations

from typing import Any

import pytest
from config_numbers import numbers_of, outside

from agentlightning.advantages import AdvantageConfig
from agentlightning.errors import ConfigError
from agentlightning.loss import LossConfig
from agentlightning_grpo.algorithm import GRPO
from agentlightning_grpo.presets import PRESETS, resolve_preset

WRONG = [
    (part, text, value)
    for part, kind in (("loss", LossConfig), ("advantage", AdvantageConfig))
    for text, _, number in numbers_of(kind)
    for value in outside(number)
]


@pytest.mark.parametrize("kind", [LossConfig, AdvantageConfig, GRPO.config_type({})])
def test_every_number_has_a_range(kind: Any) -> None:
    for text, _, number in numbers_of(kind):
        assert (number.ge, number.gt) != (None, None), text


@pytest.mark.parametrize(("part", "name", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(part: str, name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_preset("trl-1.16/dapo", **{part: {name: value}}, at="algorithm.")
    assert str(caught.value).startswith(f"algorithm.{part}.{name}: ")


@pytest.mark.parametrize("name", ["cispo", "sampler_correction"])
def test_the_lower_end_of_a_range_is_not_above_the_upper(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_preset("trl-1.16/dapo", {f"{name}_min": 6.0, f"{name}_max": 5.0}, at="algorithm.")
    assert str(caught.value) == f"algorithm.loss: expected {name}_min <= {name}_max, got 6.0 and 5.0"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_in_range(name: str) -> None:
    assert resolve_preset(name) == PRESETS[name]
