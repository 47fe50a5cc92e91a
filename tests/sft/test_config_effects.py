"""Every key of a fine-tuning run changes something that is measured, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import config_effects
import pytest
from config_effects import REFUSED, check_key, keys_of_config, values_for

from agentlightning_sft.algorithm import SFT

BASE = {**config_effects.BASE, "keep": 4}
CHANGED: dict[str, Any] = {**config_effects.CHANGED, "credit": "broadcast", "keep": 1, "threshold": 0.0}
ELSEWHERE = {
    **config_effects.ELSEWHERE,
    "demonstrations": "tests/sft/test_sft.py: no task is run",
    **{f"from_live.{key}": "tests/sft/test_from_live.py" for key in ("run", "store", "since", "top")},
}
KEYS = keys_of_config(SFT)


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
    refused = (*REFUSED, "credit", "group_size")  # it gives credit itself; keep 4 of 3 cannot be
    await check_key(SFT, key, BASE, CHANGED, folder=tmp_path, values=values, measured=measured, refused=refused)


def test_every_key_is_held_to_it() -> None:
    assert {*CHANGED, *ELSEWHERE} == set(KEYS)
