"""The numbers of a selection: each has a range, those of a candidate too."""

from __future__ import annotations

from typing import Any

import pytest
from config_numbers import numbers_of, outside, section

from agentlightning.config import decode_section
from agentlightning.errors import ConfigError
from agentlightning_selection.config import Candidate, SelectionConfig

NUMBERS = [(kind, *number) for kind in (Candidate, SelectionConfig) for number in numbers_of(kind)]
REQUIRED: dict[Any, Any] = {
    Candidate: {"model": "m"},
    SelectionConfig: {"candidates": [{"model": "a"}, {"model": "b"}]},
}
WRONG = [(kind, text, path, value) for kind, text, path, number in NUMBERS for value in outside(number)]


def test_every_number_has_a_range() -> None:
    for _, text, _, number in NUMBERS:
        assert (number.ge, number.gt) != (None, None), text


@pytest.mark.parametrize(("kind", "text", "path", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(kind: Any, text: str, path: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        decode_section({**REQUIRED[kind], **section(path, value)}, kind, at="algorithm")
    assert str(caught.value).startswith(f"algorithm.{text}: ")
