"""The numbers of a training run: each has a range, and what lies outside is refused with path, limit and value."""

from __future__ import annotations

from typing import Any

import pytest
from config_numbers import numbers_of, outside, section

from agentlightning.config import decode_section
from agentlightning.errors import ConfigError
from agentlightning.policy_gradient import PolicyGradient

CONFIG = PolicyGradient.config_type({"backend": "torch"})
NUMBERS = numbers_of(CONFIG)
WRONG = [(text, path, value) for text, path, number in NUMBERS for value in outside(number)]


def test_every_number_has_a_range() -> None:
    assert len(NUMBERS) > 20
    for text, _, number in NUMBERS:
        assert (number.ge, number.gt) != (None, None), text


@pytest.mark.parametrize(("text", "path", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(text: str, path: Any, value: Any) -> None:
    given = section(path, value)
    given["model"] = {"path": "m", **given.get("model", {})}
    with pytest.raises(ConfigError) as caught:
        decode_section(given, CONFIG, at="algorithm")
    assert str(caught.value).startswith(f"algorithm.{text}: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1}, "algorithm.lr: expected float > 0.0, got -1"),
        ({"lr": 5}, "algorithm.lr: expected float <= 1.0, got 5"),
        ({"betas": [0.9, 1.0]}, "algorithm.betas[1]: expected float < 1.0, got 1.0"),
        ({"temperature": 0}, "algorithm.temperature: expected float > 0.0, got 0"),
        ({"engine": {"port": 70000}}, "algorithm.engine.port: expected int <= 65535, got 70000"),
        ({"evaluate": {"every": -1}}, "algorithm.evaluate.every: expected int >= 0, got -1"),
    ],
)
def test_the_message_has_path_limit_and_value(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_section({"model": {"path": "m"}, **given}, CONFIG, at="algorithm")
    assert str(caught.value) == message
