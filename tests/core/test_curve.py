"""The curve: what is drawn, and when nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_run import RUN, fill, url_in

from agentlightning.algorithm import Evaluation
from agentlightning.cli.curve import _draw_evaluations, draw_curve, rewards_by_step
from agentlightning.records import Failure, Purpose, Reward, Rollout
from agentlightning.store import RunRecord, open_store


def ended(
    step: int, group: str, value: float | None, failure: Failure | None = None, purpose: Purpose = "train"
) -> Rollout:
    return Rollout(
        id="id",
        run_id="run",
        group_id=group,
        task_id=group,
        purpose=purpose,
        step=step,
        status="succeeded",
        rewards=[Reward(name="x", value=value)],
        failure=failure,
    )


def test_a_step_is_the_mean_and_spread_of_its_groups() -> None:
    (step,) = rewards_by_step([ended(1, "a", 1.0), ended(1, "a", 0.0), ended(1, "b", 1.0), ended(1, "b", 1.0)])
    assert (step.step, step.mean, step.spread) == (1, 0.75, 0.25)
    assert (step.low, step.high) == (0.5, 1.0)


def test_what_cannot_be_compared_is_in_no_step() -> None:
    broken = Failure(type="timeout", message="", fault="infrastructure")
    steps = rewards_by_step(
        [
            ended(10, "a", 1.0),
            ended(9, "a", 0.5),
            ended(9, "b", None),
            ended(9, "c", 0.0, broken),
            ended(0, "a", 0.0, purpose="evaluate"),
        ]
    )
    assert [(step.step, step.mean) for step in steps] == [(9, 0.5), (10, 1.0)]


async def test_a_run_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    await fill(url_in(tmp_path))
    store = open_store(url_in(tmp_path))
    path = tmp_path / "folder" / "curve.png"
    try:
        run = await store.run(RUN)
        assert run is not None
        assert await draw_curve(store, run, path) == str(path)
        assert path.read_bytes().startswith(b"\x89PNG")
    finally:
        await store.close()


def test_the_curve_of_a_validation_is_one_of_its_own() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.add_subplot()
    kinds: list[tuple[Purpose, str]] = [("evaluate", "sampled"), ("evaluate", ""), ("validate", "")]
    _draw_evaluations(
        axes,
        [
            Evaluation(step=step, variant=variant, purpose=purpose, tasks=[], rollouts=[], rewards=[0.5])
            for step in (0, 1)
            for purpose, variant in kinds
        ],
    )
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["held-out, sampled", "held-out", "validation"]


async def test_a_run_without_rewards_has_no_curve(tmp_path: Path) -> None:
    store = open_store(url_in(tmp_path))
    path = tmp_path / "curve.png"
    try:
        run = await store.open_run(RunRecord(id="run", name="name", algorithm="grpo"))
        assert await draw_curve(store, run, path) is None
        assert not path.exists()
    finally:
        await store.close()


async def test_a_curve_that_cannot_be_written_breaks_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    await fill(url_in(tmp_path))
    store = open_store(url_in(tmp_path))
    try:
        (tmp_path / "file").touch()
        run = await store.run(RUN)
        assert run is not None
        assert await draw_curve(store, run, tmp_path / "file" / "curve.png") is None
        assert "the curve cannot be written" in caplog.text
    finally:
        await store.close()
