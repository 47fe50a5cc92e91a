"""What was imported is learned from, as what was recorded here is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drawn_run import DrawnRun
from importing_files import Imports

from agentlightning.errors import ConfigError
from agentlightning.recorded import FromLive, best_recorded
from agentlightning.store import Recorded, Store
from agentlightning_grpo.algorithm import GRPO
from agentlightning_sft.algorithm import SFT


class LiveRun(DrawnRun):
    """A run that learns from what is in a store."""

    store: Store

    async def recorded(self, which: FromLive, *, threshold: float | None) -> list[Recorded]:
        self.chosen = await best_recorded(self.store, which, threshold=threshold)
        return self.chosen

    async def evaluate(self, **_: Any) -> Any:
        return None


async def test_fine_tuning_learns_the_answers_of_imported_rollouts_that_scored_well(
    imports: Imports, tiny_model: Path, tmp_path: Path
) -> None:
    await imports.read("langfuse_traces.json")
    run = LiveRun(tmp_path / "run")
    run.store = imports.store
    algorithm = SFT.from_section(
        {
            "model": {"path": str(tiny_model), "device": "cpu"},
            "from_live": {"run": "mine"},
            "steps": 3,
            "batch_tasks": 2,
            "lr": 1e-2,
            "evaluate": {"samples": 1, "greedy": False},
        }
    )
    await algorithm.run(run)
    assert {one.rollout.output for one in run.chosen} == {"The answer is 71.", "The answer is 11."}
    losses = [run.logged[step]["loss"] for step in (1, 2, 3)]
    assert losses[0] > losses[1] > losses[2]


def test_an_algorithm_that_needs_its_policys_probabilities_refuses_and_says_why() -> None:
    with pytest.raises(ConfigError) as raised:
        GRPO.from_section({"model": {"path": "x"}, "from_live": {"run": "mine"}})
    assert str(raised.value).startswith("algorithm.from_live: GRPO ")
    assert "how likely each of its tokens was is not known" in str(raised.value)
