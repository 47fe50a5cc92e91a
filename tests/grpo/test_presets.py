"""Presets: whole choices by name, single fields of which the config replaces."""

from __future__ import annotations

import pytest

from agentlightning.errors import ConfigError
from agentlightning_grpo.presets import PRESETS, resolve_preset


def test_a_field_replaces_the_presets() -> None:
    chosen = resolve_preset("trl-1.16/dapo", {"epsilon_high": 0.28}, {"scale": "none"})
    assert chosen.loss.epsilon_high == 0.28
    assert chosen.advantage.scale == "none"
    assert chosen.loss.epsilon_low == PRESETS["trl-1.16/dapo"].loss.epsilon_low
    assert resolve_preset("trl-1.16/dapo") == PRESETS["trl-1.16/dapo"]


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("trl-1.16/dappo", {}, "did you mean trl-1.16/dapo"),
        ("trl-1.16/dapo", {"epsilon_hig": 1}, "algorithm.loss.epsilon_hig: unknown key; did you mean epsilon_high"),
        ("trl-1.16/dapo", {"beta": "much"}, "algorithm.loss.beta: expected"),
        ("trl-1.16/dapo", {"aggregation": "sum"}, "algorithm.loss.aggregation"),
    ],
)
def test_a_wrong_choice_is_named_with_its_path(name: str, loss: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_preset(name, loss, at="algorithm.")
