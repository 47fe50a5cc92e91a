"""Every key of a selection, and of a candidate, changes what is asked, counted or chosen, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from replayed_models import TableRun

from agentlightning_selection.algorithm import Selection
from agentlightning_selection.config import CONFIGS, Candidate

LARGE = {"model": "large", "input_price": 10.0, "output_price": 30.0}
MEDIUM = {"model": "medium", "input_price": 1.0, "output_price": 3.0}
SMALL = {"model": "small", "input_price": 0.1, "output_price": 0.3}
BOTH = [LARGE, SMALL]
KINDS = [{**LARGE, "model": "large!"}, {**MEDIUM, "model": "medium!"}, {**SMALL, "model": "small!"}]
"""Models that are good at one kind of question."""

PRICED = {"candidates": [KINDS[0], KINDS[2]], "quality_price": 0.02}
SLOW = [{**LARGE, "input_price": 0.01, "output_price": 0.0}, MEDIUM]
"""The slower is the cheaper one."""

Change = tuple[dict[str, Any], Any]
"""What else is set with a key, and its other value."""
COMMON: dict[str, Change] = {
    "candidates": ({}, [LARGE, SMALL, MEDIUM]),
    "agents": ({}, ["judge"]),
}
FIXED: dict[str, Change] = {
    **COMMON,
    "objective": ({}, "cheapest"),
    "cost_weight": ({}, 50.0),
    "time_weight": ({}, 5.0),
    "margin": ({"objective": "cheapest", "candidates": [LARGE, MEDIUM]}, 0.9),
}
TRAFFIC: dict[str, Change] = {
    **COMMON,
    "batch": ({}, 4),
    "budget": ({}, 30),
    "confidence": ({"candidates": [LARGE, MEDIUM], "budget": 300, "batch": 10}, 0.50001),
    "cost_weight": ({}, 50.0),
    "time_weight": ({}, 5.0),
    "discount": ({}, 0.8),
}
CHANGED: dict[str, dict[str, Change]] = {
    "racing": {
        **FIXED,
        "batch": ({}, 6),
        "minimum": ({"batch": 12}, 48),
        "confidence": ({"batch": 12}, 0.999999999),
        "budget": ({}, 30),
        "max_dollars": ({"batch": 12}, 0.01),
    },
    "successive_halving": {
        **FIXED,
        "objective": ({"candidates": SLOW, "objective": "cheapest", "margin": 0.9}, "fastest"),
        "batch": ({}, 4),
        "confidence": ({"candidates": [LARGE, MEDIUM], "budget": 96}, 0.50001),
        "budget": ({}, 60),
        "eta": ({"candidates": [LARGE, SMALL, MEDIUM]}, 3),
    },
    "thompson": {
        **TRAFFIC,
        "confidence": ({"candidates": [LARGE, MEDIUM], "budget": 300, "batch": 10}, 0.9999999),
        "posterior": ({}, "beta"),
    },
    "ucb": {**TRAFFIC, "exploration": ({}, 5.0), "reward_range": ({}, 4.0)},
    "contextual": {
        "candidates": ({}, KINDS[:2]),
        "agents": ({}, ["judge"]),
        "batch": ({}, 12),
        "budget": ({}, 90),
        "confidence": (PRICED, 0.999999999999),
        "features": (PRICED, "replayed_models:sevens"),
        "learner": ({}, "linucb"),
        "quality_price": ({}, 0.001),
        "cost_limit": ({}, 0.001),
        "compare_held_out": ({}, True),
        "neighbours": ({}, [3]),
        "temperatures": ({}, [10.0]),
        "folds": ({}, 3),
        "alpha": ({"learner": "linucb", "batch": 4}, 0.0),
        "regularisation": ({"learner": "linucb", "batch": 4}, 50.0),
    },
}
BASE: dict[str, dict[str, Any]] = {
    "racing": {"candidates": BOTH},
    "successive_halving": {"candidates": BOTH, "budget": 90},
    "thompson": {"candidates": BOTH},
    "ucb": {"candidates": BOTH},
    "contextual": {
        "candidates": KINDS,
        "features": "replayed_models:features",
    },
}
OF_A_CANDIDATE: dict[str, Any] = {
    "model": "other",
    "base_url": "http://127.0.0.1:1/v1",
    "api_key_env": "A_KEY_OF_ITS_OWN",
    "input_price": 1.0,
    "output_price": 1.0,
}
measured: dict[str, str] = {}
"""Of what was measured before."""
KEYS = [(strategy, key) for strategy, keys in CHANGED.items() for key in keys]


async def measure(folder: Path, strategy: str, options: dict[str, Any]) -> str:
    """All that a run did, in one text."""
    run = TableRun(folder / "run", count=60)
    await Selection.from_section({"strategy": strategy, **options}).run(run)
    results = {name: text for name, text in run.results.items() if name not in ("front table", "front picture")}
    kept = Path(run.results["front table"]).read_text()
    published = [(type(one).__name__, getattr(one, "model", None)) for one in run.published]
    return repr((run.events, published, sorted(run.logged.items()), results, kept)).replace(str(folder), "")


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning_selection.contest.draw", lambda *_: None)


@pytest.mark.parametrize(("strategy", "key"), KEYS)
async def test_a_key_changes_something(tmp_path: Path, strategy: str, key: str) -> None:
    beside, value = CHANGED[strategy][key]
    base = {**BASE[strategy], **beside}
    before = measured.get(repr((strategy, base)))
    if before is None:
        before = measured[repr((strategy, base))] = await measure(tmp_path, strategy, base)
        assert before == await measure(tmp_path, strategy, base), "what is measured is no noise"
    assert before != await measure(tmp_path, strategy, {**base, key: value})


@pytest.mark.parametrize("key", OF_A_CANDIDATE)
async def test_a_key_of_a_candidate_changes_something(tmp_path: Path, key: str) -> None:
    before = await measure(tmp_path, "racing", {"candidates": BOTH})
    changed = [{**LARGE, key: OF_A_CANDIDATE[key]}, SMALL]
    assert before != await measure(tmp_path, "racing", {"candidates": changed})


@pytest.mark.parametrize("strategy", CONFIGS)
def test_every_key_is_held_to_it(strategy: str) -> None:
    keys = {field.name for field in msgspec.structs.fields(CONFIGS[strategy])}
    assert set(CHANGED[strategy]) == keys - {"strategy"}


def test_every_key_of_a_candidate_is_held_to_it() -> None:
    assert set(OF_A_CANDIDATE) == {field.name for field in msgspec.structs.fields(Candidate)}
