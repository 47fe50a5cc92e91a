"""Every key of a GRPO run changes something that is measured: its rollouts, its requests, its numbers, its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import config_effects
import pytest
from config_effects import BASE, ELSEWHERE, check_key, keys_of_config, values_for

from agentlightning.credit import Credit
from agentlightning.training_rows import Group
from agentlightning_grpo.algorithm import GRPO

CHANGED: dict[str, Any] = {
    **config_effects.CHANGED,
    "credit": f"{__name__}:Nothing",
    "preset": "verl-0.9/sapo",
    "loss": {"beta": 0.5},
    "advantage": {"scale": "none"},
    "replay": 1.0,
    "rest": 1,
}
KEYS = keys_of_config(GRPO)


class Nothing(Credit):
    def assign(self, groups: Sequence[Group]) -> None:
        for group in groups:
            for member in group.rollouts:
                member.set_advantage(0.0)


@pytest.fixture(scope="module")
def values(tiny_model_of: Callable[[str], Path]) -> dict[str, str | int]:
    return values_for(tiny_model_of)


@pytest.fixture(scope="module")
def measured() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ELSEWHERE])
async def test_a_key_changes_something_or_is_refused(
    tmp_path: Path, values: dict[str, str | int], measured: dict[str, str], key: str
) -> None:
    await check_key(GRPO, key, BASE, CHANGED, folder=tmp_path, values=values, measured=measured)


def test_every_key_is_held_to_it() -> None:
    assert {*CHANGED, *ELSEWHERE} == set(KEYS)
