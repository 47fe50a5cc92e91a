"""The numbers of a fine-tuning run: each has a range, but the threshold, which is a reward."""

from __future__ import annotations

from typing import Any

import pytest
from config_numbers import numbers_of, outside, section

from agentlightning.config import decode_section
from agentlightning.errors import ConfigError
from agentlightning_sft.algorithm import SFT

CONFIG = SFT.config_type({})
NUMBERS = numbers_of(CONFIG)
WRONG = [(text, path, value) for text, path, number in NUMBERS for value in outside(number)]


def test_every_number_but_the_threshold_has_a_range() -> None:
    assert [text for text, _, number in NUMBERS if number.ge is None and number.gt is None] == ["threshold"]


@pytest.mark.parametrize(("text", "path", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(text: str, path: Any, value: Any) -> None:
    given = section(path, value)
    given["model"] = {"path": "m", **given.get("model", {})}
    with pytest.raises(ConfigError) as caught:
        decode_section(given, CONFIG, at="algorithm")
    assert str(caught.value).startswith(f"algorithm.{text}: ")


def test_demonstrations_teach_one_policy() -> None:
    options = {
        "model": {"path": "any"},
        "demonstrations": "any.jsonl",
        "policies": {"planner": {"agents": ["planner"]}},
    }
    with pytest.raises(ConfigError, match=r"algorithm\.policies: demonstrations name no agent"):
        SFT.from_section(options)
