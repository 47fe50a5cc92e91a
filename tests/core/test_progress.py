"""What the terminal says while a run goes on."""

from __future__ import annotations

import io
import logging
import time

import pytest
from rich.console import Console
from rich.text import Text

from agentlightning.algorithm import Evaluation
from agentlightning.cli.live_progress import LiveProgress, make_progress
from agentlightning.cli.progress import Pace, PlainProgress, Tally
from agentlightning.formatting import format_duration
from agentlightning.progress import Progress
from agentlightning.records import Failure, Reward, Rollout, Task
from agentlightning.store import RunRecord

RUN = RunRecord(id="calculator-1", name="calculator", algorithm="grpo", seed=3)


def ended(
    value: float | None, *, failure: str | None = None, ended_at: float | None = None, **fields: object
) -> Rollout:
    return Rollout(
        id="id",
        run_id="run",
        group_id="group",
        task_id="task",
        purpose="train",
        step=1,
        status="failed" if failure else "succeeded",
        rewards=[Reward(name="x", value=value)],
        failure=Failure(type=failure, message="") if failure else None,
        ended_at=time.time() if ended_at is None else ended_at,
        **fields,  # type: ignore[arg-type]
    )


def plain() -> tuple[PlainProgress, io.StringIO]:
    output = io.StringIO()
    progress = make_progress(console=Console(file=output, width=40))
    assert type(progress) is PlainProgress
    return progress, output


def test_without_a_terminal_a_step_is_one_line() -> None:
    progress, output = plain()
    progress.start(RUN)
    progress.collection("step 1", 3)
    for rollout in (ended(1.0), ended(0.0), ended(0.5, failure="tool_error")):
        progress.rollout(rollout, 10)
    progress.step(1, 4, {"loss": 0.25, "internal": 3.0})
    progress.stop()
    start, step = output.getvalue().splitlines()
    assert start == "run calculator-1: grpo, seed 3"
    assert step.startswith("step 1/4  reward 0.500 ± 0.408  rollouts 3  ")
    assert " tokens/s  loss 0.25  " in step
    assert step.endswith(" left  failures: 1 tool_error")
    assert "internal" not in step


def test_rollouts_that_cannot_be_scored_are_in_no_mean() -> None:
    progress, output = plain()
    progress.collection("step 1", 2)
    progress.rollout(ended(1.0), 0)
    progress.rollout(ended(None), 0)
    progress.step(1, 1, {})
    assert "reward 1.000 ± 0.000  rollouts 2" in output.getvalue()


def test_collections_of_one_step_are_counted_together() -> None:
    progress, output = plain()
    for number, value in enumerate((0.0, 1.0)):
        progress.collection(f"step {number}", 1)
        progress.rollout(ended(value), 0)
    progress.step(1, 2, {})
    progress.collection("step 2", 1)
    progress.rollout(ended(1.0), 0)
    progress.step(2, 2, {})
    first, second = output.getvalue().splitlines()
    assert "reward 0.500 ± 0.500  rollouts 2" in first
    assert "reward 1.000 ± 0.000  rollouts 1" in second


def test_an_evaluation_is_one_line() -> None:
    progress, output = plain()
    progress.collection("evaluate/0/greedy", 2, purpose="evaluate")
    progress.rollout(ended(1.0, failure="timeout"), 0)
    tasks = [Task(id=id, input=None) for id in "ab"]
    progress.evaluation(Evaluation(step=0, variant="greedy", tasks=tasks, rollouts=[], rewards=[1.0, None]))
    assert output.getvalue() == (
        "held-out tasks after step 0: greedy, mean reward 1.000  1 of 2 tasks scored  failures: 1 timeout\n"
    )


def test_a_validation_is_one_line_and_so_is_that_a_run_stopped() -> None:
    progress, output = plain()
    progress.collection("validate/3", 1, purpose="validate")
    progress.rollout(ended(1.0), 0)
    tasks = [Task(id="a", input=None)]
    progress.evaluation(Evaluation(step=3, purpose="validate", tasks=tasks, rollouts=[], rewards=[1.0]))
    progress.stopped(3, "of 2 validations in a row none was better than that of step 1")
    assert output.getvalue().splitlines() == [
        "validation tasks after step 3: mean reward 1.000  1 of 1 tasks scored",
        "stopped after step 3: of 2 validations in a row none was better than that of step 1",
    ]
    assert (progress.step_done, progress.steps) == (3, 3)


def test_tokens_of_rollouts_that_were_there_already_say_nothing_of_the_speed() -> None:
    tally = Tally("step 1", 2)
    tally.add(ended(1.0, ended_at=tally.started_at - 100), 1000)
    assert (tally.done, tally.tokens) == (1, 0)
    tally.add(ended(1.0, ended_at=tally.started_at + 1), 1000)
    assert (tally.done, tally.tokens) == (2, 1000)


def test_attempts_that_were_tried_again_are_counted() -> None:
    progress, output = plain()
    progress.collection("step 1", 1)
    progress.rollout(ended(1.0, failed_attempts=[Failure(type="rate_limited", message="")] * 2), 0)
    progress.step(1, 1, {})
    assert "failures: 2 retried" in output.getvalue()


def test_the_time_left_is_unknown_before_the_first_step() -> None:
    pace = Pace()
    assert pace.left(5) is None
    pace.end()
    assert pace.left(5) is not None
    assert pace.left(0) == 0


def test_on_a_terminal_the_display_says_what_goes_on_now() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    progress = make_progress(console=console)
    assert isinstance(progress, LiveProgress)
    progress.start(RUN, concurrency=4)
    progress.collection("step 1", 10)
    for value in (1.0, 0.0):
        progress.rollout(ended(value), 5)
    progress.step(1, 4, {})
    progress.collection("step 2", 10)
    progress.rollout(ended(1.0, failure="timeout"), 5)
    with console.capture() as capture:
        console.print(progress.render())
    progress.stop()
    text = capture.get()
    assert "1/4 steps" in text
    assert "1/10 rollouts" in text
    assert "4 running, 5 queued" in text
    assert "failures so far: 1 timeout" in text
    assert "step 1/4  reward 0.500 ± 0.500" in output.getvalue()


def live(width: int) -> tuple[LiveProgress, Console, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=width, _environ={"TERM": "xterm"})
    progress = make_progress(console=console)
    assert isinstance(progress, LiveProgress)
    return progress, console, output


def rendered(progress: LiveProgress, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(progress.render())
    return [Text.from_ansi(line).plain for line in capture.get().splitlines()]


BAD = {
    "loss": 0.0123,
    "kl": 0.001,
    "grad_norm": 1.2,
    "lr": 1e-5,
    "optimizer_steps": 0,
    "answers": 80,
    "answers_cut_off": 73 / 80,
    "groups": 8,
    "groups_without_spread": 1.0,
    "rollouts": 64,
    "reward_min": 0.0,
    "reward_max": 1.0,
}


@pytest.mark.parametrize("width", [100, 80, 60, 40, 20])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    progress, console, output = live(width)
    name = "evaluate before/a-variant-of-a-very-long-name"
    progress.collection(name, 1000)
    for _ in range(900):
        progress.rollout(ended(0.5, failure="context_too_long", failed_attempts=[Failure(type="x", message="")]), 1000)
    assert max(map(len, rendered(progress, console))) <= width
    assert len(rendered(progress, console)) == 3
    tasks = [Task(id=str(number), input=None) for number in range(100)]
    evaluation = Evaluation(step=0, variant=name, tasks=tasks, rollouts=[], rewards=[0.5] * 100)
    progress.evaluation(evaluation, BAD)
    progress.collection("step 1", 64)
    progress.rollout(ended(0.5, failure="context_too_long"), 1000)
    progress.step(1, 1000, BAD)
    progress.collection("step 2", 64)
    assert max(map(len, rendered(progress, console))) <= width
    progress.phase("writing a checkpoint of many parameters", done=3, total=1200)
    assert max(map(len, rendered(progress, console))) <= width
    lines = [Text.from_ansi(line).plain for line in output.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) == 2, "an evaluation and a step are a line each"


def test_where_there_is_no_room_for_all_what_is_bad_stays() -> None:
    progress, _, output = live(80)
    progress.collection("step 1", 1)
    progress.rollout(ended(0.5), 1000)
    progress.step(1, 1000, {**BAD, "groups_without_spread": 0.0, "optimizer_steps": 1})
    line = Text.from_ansi(output.getvalue()).plain
    assert "step 1/1000  reward 0.500 ± 0.000" in line
    assert "73/80 answers cut off" in line
    assert "lr" not in line


def test_without_a_terminal_what_is_bad_is_on_the_line_of_its_step() -> None:
    progress, output = plain()
    progress.collection("step 1", 1)
    progress.step(1, 2, BAD)
    line = output.getvalue()
    for text in ("73/80 answers cut off", "8/8 groups without spread", "no optimizer step", "lr 1e-05"):
        assert text in line


def test_an_update_is_shown_with_its_parts_until_the_next_collection() -> None:
    progress, console, _ = live(80)
    progress.collection("step 1", 8)
    progress.phase("update", done=2, total=12)
    shown = "\n".join(rendered(progress, console))
    assert "update" in shown
    assert "part 3/12  " in shown
    assert "rollouts" not in shown
    progress.step(1, 2, {})
    progress.collection("step 2", 8)
    shown = "\n".join(rendered(progress, console))
    assert "0/8 rollouts" in shown
    assert "update" not in shown


def test_a_phase_without_parts_says_how_long_it_takes() -> None:
    progress, console, _ = live(80)
    progress.phase("loading the model")
    (line,) = rendered(progress, console)
    assert line.startswith("loading the model")
    assert line.rstrip().endswith(" s")


def test_rewards_as_large_as_a_float_can_be_are_shown() -> None:
    tally = Tally("step 1", 2)
    for value in (1e308, -1e308, 1e308):
        tally.add(ended(value), 1)
    assert tally.reward.endswith("± inf")


def test_warnings_stand_above_the_live_display() -> None:
    output = io.StringIO()
    progress = make_progress(console=Console(file=output, force_terminal=True, width=100, _environ={"TERM": "xterm"}))
    progress.start(RUN)
    logging.lastResort.handle(logging.makeLogRecord({"msg": "the endpoint is slow", "levelno": logging.WARNING}))  # type: ignore[union-attr]
    progress.stop()
    assert "the endpoint is slow" in output.getvalue()


def test_quiet_says_nothing_and_knows_its_run() -> None:
    progress = make_progress(quiet=True)
    assert type(progress) is Progress
    progress.start(RUN)
    progress.collection("step 1", 1)
    progress.rollout(ended(1.0), 1)
    progress.step(1, 1, {})
    progress.stop()
    assert progress.run is RUN


def test_durations_read_as_people_say_them() -> None:
    assert [format_duration(seconds) for seconds in (0.84, 42.4, 59.7, 200, 7500)] == [
        *("0.8 s", "42 s", "60 s", "3 min 20 s", "2 h 5 min")
    ]
