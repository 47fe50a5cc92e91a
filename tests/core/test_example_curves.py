"""What the examples compare learning curves by: files that can be read, and when a run has learned."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from agentlightning.config import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*/curves.yaml"))


@pytest.fixture(scope="module")
def script() -> SimpleNamespace:
    pytest.importorskip("matplotlib")
    return SimpleNamespace(**runpy.run_path(str(EXAMPLES / "curves.py")))


@pytest.mark.parametrize("file", FILES, ids=[file.parent.name for file in FILES])
def test_each_way_is_the_config_with_some_of_its_keys_changed(
    script: SimpleNamespace, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    curves = msgspec.yaml.decode(file.read_bytes(), type=script.Curves)
    configs = [msgspec.json.encode(load_config(curves.config, settings)) for settings in curves.ways.values()]
    assert len(set(configs)) == len(configs) > 1


def test_a_run_has_learned_when_the_mean_of_so_many_steps_is_the_target(script: SimpleNamespace) -> None:
    curve = script.Curve("way", 0, [0.0, 1.0, 0.5, 1.0, 0.0], [4, 8, 12, 16, 20])
    assert [curve.needed(target, 2) for target in (0.5, 0.75, 0.8)] == [8, 12, math.inf]
    assert curve.needed(0.8, 3) == 16


def test_a_table_without_a_target_compares_the_first_third_with_the_last(script: SimpleNamespace) -> None:
    curve = script.Curve("way", 0, [0.0, 0.5, 0.5, 0.5, 1.0, 0.5], [1, 2, 3, 4, 5, 6])
    table = script.table(script.Curves(config="", ways={}), {"way": [curve, curve]})
    assert table.splitlines()[-1] == "| way | 0.25, 0.25 | 0.75, 0.75 |"
