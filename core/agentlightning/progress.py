"""The terminal while a run goes on: a live display, or one plain line per step where there is no terminal."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from agentlightning.algorithm import Evaluation
from agentlightning.records import Rollout
from agentlightning.store.base import RunRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

RECENT_STEPS = 10
"""The time left is told by the median of so many steps."""


class Progress:
    """What a run tells its terminal. This one says nothing (``quiet``); the others show what they are told.

    Called from the event loop of the run, in this order: `start`; then, again and again, `stage` when a
    collection or an evaluation begins, `rollout` at the end of each of its rollouts, `evaluation` or `step`
    at its end; then `stop`.
    """

    run: RunRecord | None = None
    """The run that was started, for whoever has to say how to go on with it."""

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        """A run begins, or goes on; ``concurrency`` of its rollouts run at once."""
        self.run = run

    def stage(self, name: str, total: int) -> None:
        """A collection or an evaluation of ``total`` rollouts begins."""

    def rollout(self, rollout: Rollout, tokens: int) -> None:
        """A rollout of the stage has ended; its agent was answered with ``tokens`` tokens."""

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Step ``step`` of ``steps`` is done."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """An evaluation is done."""

    def message(self, text: str) -> None:
        """Something that a person should read."""

    def stop(self) -> None:
        """The run has ended, one way or another."""


def make_progress(*, quiet: bool = False, console: Console | None = None) -> Progress:
    """The display for ``console`` (standard error, by default): live where it is a terminal, else plain lines."""
    if quiet:
        return Progress()
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


class Tally:
    """Counts of a stage's rollouts: how many ended, what they were worth, what went wrong.

    Rollouts that ended before the stage began (a resumed run finds them in its store) count, but their
    tokens do not: they say nothing about the speed.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.tokens = 0
        self.retried = 0
        self.failures: Counter[str] = Counter()
        self.rewards: list[float] = []
        self.started_at = time.time()
        self.last_at = self.started_at

    def add(self, rollout: Rollout, tokens: int) -> None:
        self.done += 1
        self.last_at = time.time()
        if rollout.ended_at is None or rollout.ended_at >= self.started_at:
            self.tokens += tokens
        self.retried += len(rollout.failed_attempts)
        if rollout.failure is not None:
            self.failures[rollout.failure.type] += 1
        if rollout.comparable and rollout.reward is not None:
            self.rewards.append(rollout.reward)

    @property
    def reward(self) -> str:
        """``0.420 ± 0.210``: the mean over the rollouts that could be scored, and their standard deviation."""
        if not self.rewards:
            return "–"
        mean = sum(self.rewards) / len(self.rewards)
        spread = math.sqrt(sum((reward - mean) ** 2 for reward in self.rewards) / len(self.rewards))
        return f"{mean:.3f} ± {spread:.3f}"

    @property
    def speed(self) -> float | None:
        """Tokens per second, from the stage's beginning to its last rollout; None before there are any."""
        seconds = self.last_at - self.started_at
        return self.tokens / seconds if self.tokens and seconds > 0 else None


class Pace:
    """How long steps take, and so how long the rest will."""

    def __init__(self) -> None:
        self.last: float | None = None
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._since = time.monotonic()

    def begin(self) -> None:
        """A step begins now; what was before (an evaluation, say) is no part of it."""
        self._since = time.monotonic()

    def end(self) -> None:
        """A step ends, and the next one begins."""
        now = time.monotonic()
        self.last = now - self._since
        self._seconds.append(self.last)
        self._since = now

    def left(self, steps: int) -> float | None:
        """Seconds that ``steps`` more steps will take; None before the first step has ended."""
        if not self._seconds:
            return None
        return sorted(self._seconds)[len(self._seconds) // 2] * steps


class PlainProgress(Progress):
    """One line per step and per evaluation, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tally: Tally | None = None
        self._collected: Tally | None = None
        self.pace = Pace()
        self.step_done = 0
        self.steps: int | None = None

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        super().start(run, steps, concurrency=concurrency)
        self.steps = steps
        self.message(f"run {run.id}: {run.algorithm}, seed {run.seed}")

    def stage(self, name: str, total: int) -> None:
        if is_evaluation(name):
            self.tally = Tally(name, total)
        elif self._collected is None:
            self.tally = self._collected = Tally(name, total)
            self.pace.begin()
        else:  # a step may collect more than once
            self._collected.name = name
            self._collected.total += total
            self.tally = self._collected

    def rollout(self, rollout: Rollout, tokens: int) -> None:
        if self.tally is not None:
            self.tally.add(rollout, tokens)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self.pace.end()
        self.step_done, self.steps = step, steps
        self.message("  ".join([f"step {step}/{steps}", *self._summary(metrics)]))
        self._collected = None

    def evaluation(self, evaluation: Evaluation) -> None:
        name = f"{evaluation.stage}/{evaluation.variant}" if evaluation.variant else evaluation.stage
        mean = "no task could be scored" if evaluation.mean is None else f"mean reward {evaluation.mean:.3f}"
        scored = sum(reward is not None for reward in evaluation.rewards)
        trouble = failures_text(self.tally) if self.tally is not None else ""
        self.message(
            f"evaluate {name}: {mean}, {scored} of {len(evaluation.tasks)} tasks scored"
            + (f"  failures: {trouble}" if trouble else "")
        )
        self.pace.begin()

    def message(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed; the run goes on
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _summary(self, metrics: Mapping[str, float]) -> list[str]:
        tally = self._collected
        parts = []
        if tally is not None:
            parts.append(f"reward {tally.reward}")
            parts.append(f"rollouts {tally.done}")
            if tally.speed is not None:
                parts.append(f"{tally.speed:.0f} tokens/s")
        parts += [f"{name} {value:.3g}" for name, value in shown_metrics(metrics)]
        if self.pace.last is not None:
            parts.append(duration(self.pace.last))
        left = self.pace.left((self.steps or 0) - self.step_done)
        if left:
            parts.append(f"{duration(left)} left")
        trouble = failures_text(tally) if tally is not None else ""
        if trouble:
            parts.append(f"failures: {trouble}")
        return parts


class LiveProgress(PlainProgress):
    """The same lines, and under them, while it lasts, what is going on right now."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        super().__init__(console)
        self.failures: Counter[str] = Counter()
        self.retried = 0
        self._concurrency: int | None = None
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        super().start(run, steps, concurrency=concurrency)
        self._concurrency = concurrency
        self._live.start()

    def rollout(self, rollout: Rollout, tokens: int) -> None:
        super().rollout(rollout, tokens)
        self.retried += len(rollout.failed_attempts)
        if rollout.failure is not None:
            self.failures[rollout.failure.type] += 1

    def stop(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def render(self) -> RenderableType:
        """The display as it is now."""
        from rich.console import Group

        return Group(*self._bars(), *self._lines())

    def _bars(self) -> list[RenderableType]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(width=32)
        grid.add_column(no_wrap=True)
        if self.steps:
            left = self.pace.left(self.steps - self.step_done)
            rest = f"{duration(left)} left" if left else ""
            grid.add_row(
                "training",
                ProgressBar(total=self.steps, completed=self.step_done),
                f"{self.step_done}/{self.steps} steps  [dim]{rest}[/]",
            )
        tally = self.tally
        if tally is not None:
            grid.add_row(tally.name, ProgressBar(total=tally.total, completed=tally.done), self._rollouts(tally))
        return [grid]

    def _rollouts(self, tally: Tally) -> str:
        done = f"{tally.done}/{tally.total} rollouts"
        rest = tally.total - tally.done
        if self._concurrency is None or not rest:
            return done
        running = min(self._concurrency, rest)
        return f"{done}  [dim]{running} running, {rest - running} queued[/]"

    def _lines(self) -> list[RenderableType]:
        from rich.text import Text

        tally = self.tally
        if tally is None:
            return []
        elapsed = time.time() - tally.started_at
        speed = f"  {tally.speed:.0f} tokens/s" if tally.speed is not None else ""
        line = Text.assemble("reward ", (tally.reward, "bold cyan"), (f"{speed}  {duration(elapsed)}", "dim"))
        trouble = counted(self.failures, self.retried)
        return [line, Text(f"failures so far: {trouble}", style="yellow")] if trouble else [line]


def is_evaluation(stage: str) -> bool:
    """Whether a stage's name, as a run gives it, is that of an evaluation."""
    return stage.startswith("evaluate")


def shown_metrics(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """The numbers of a step that fit on its line."""
    return [(name, value) for name, value in metrics.items() if name in ("loss", "kl", "grad_norm", "lr")]


def failures_text(tally: Tally) -> str:
    """``2 tool_error, 1 timeout, 3 retried``; empty when nothing went wrong."""
    return counted(tally.failures, tally.retried)


def counted(failures: Counter[str], retried: int) -> str:
    """Failures by type, the most frequent first, and how many attempts were tried again."""
    parts = [f"{count} {type}" for type, count in failures.most_common()]
    return ", ".join([*parts, f"{retried} retried"] if retried else parts)


def duration(seconds: float) -> str:
    """``0.8 s``, ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
