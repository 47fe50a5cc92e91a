"""The display of a terminal: what is going on right now, under the lines that stay."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agentlightning.algorithm import Evaluation
from agentlightning.cli.progress import Part, PlainProgress, Tally, format_failures
from agentlightning.formatting import format_duration
from agentlightning.progress import Progress
from agentlightning.records import Purpose, Rollout
from agentlightning.store.base import RunRecord

MAX_BAR, MIN_BAR = 32, 8
MAX_COUNTS = 34
"""Columns of what stands beside a bar, about."""
GAP = 2


def make_progress(*, quiet: bool = False, console: Console | None = None) -> Progress:
    """The display for ``console`` (standard error, by default): live where it is a terminal, else plain lines."""
    if quiet:
        return Progress()
    console = Console(stderr=True) if console is None else console
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


class Phase:
    """What goes on that is no rollout, and since when."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = self.total = 0
        self.began_at = time.monotonic()

    @property
    def text(self) -> str:
        """``part 3/12  18 s``."""
        parts = f"part {min(self.done + 1, self.total)}/{self.total}  " if self.total else ""
        return f"{parts}{format_duration(time.monotonic() - self.began_at)}"


class LiveProgress(PlainProgress):
    """The lines of `PlainProgress`, cut to the terminal's width, and under them, while it lasts, what is going on.

    No line is wider than the terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.failures: Counter[str] = Counter()
        self.retried = 0
        self._concurrency: int | None = None
        self._phase: Phase | None = Phase("starting")
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        super().start(run, steps, concurrency=concurrency)
        self._concurrency = concurrency
        self._live.start()

    def collection(self, name: str, total: int, *, purpose: Purpose = "train") -> None:
        super().collection(name, total, purpose=purpose)
        self._phase = None

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        now = self._phase
        if now is None or now.name != name:
            now = Phase(name)
        now.done, now.total = done, total
        self._phase = now

    def rollout(self, rollout: Rollout, tokens: int) -> None:
        super().rollout(rollout, tokens)
        self.retried += len(rollout.failed_attempts)
        if rollout.failure is not None:
            self.failures[rollout.failure.type] += 1

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        super().step(step, steps, metrics)
        self._phase = None

    def evaluation(self, evaluation: Evaluation, metrics: Mapping[str, float] | None = None) -> None:
        super().evaluation(evaluation, metrics)
        self._phase = None

    def message(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed; the run goes on
            self.console.print(text, markup=False, highlight=False)

    def line(self, parts: Sequence[Part]) -> None:
        kept, width = list(parts), self.console.width
        while len(kept) > 1 and Text("  ".join(part.text for part in kept)).cell_len > width:
            kept.remove(min(kept, key=lambda part: part.weight))
        line = Text("  ".join(part.text for part in kept))
        line.truncate(width, overflow="ellipsis")
        with suppress(OSError):
            self.console.print(line, highlight=False)

    def stop(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def render(self) -> RenderableType:
        """The display as it is now."""
        return Group(self._bars(), *self._lines())

    def _bars(self) -> Table:
        width = self.console.width
        bar = max(MIN_BAR, min(MAX_BAR, width - MAX_COUNTS - width // 5))
        name = max(len("training"), min(24, width // 4))
        grid = Table.grid(padding=(0, GAP))
        grid.add_column(style="bold", no_wrap=True, overflow="ellipsis", max_width=name)
        grid.add_column(width=bar)
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(1, width - name - bar - 3 * GAP))
        if self.steps:
            left = self.pace.left(self.steps - self.step_done)
            rest = f"  [dim]{format_duration(left)} left[/]" if left else ""
            bar_of_steps = ProgressBar(total=self.steps, completed=self.step_done)
            grid.add_row("training", bar_of_steps, f"{self.step_done}/{self.steps} steps{rest}")
        phase, tally = self._phase, self.tally
        if phase is not None:
            grid.add_row(phase.name, ProgressBar(total=phase.total or None, completed=phase.done), phase.text)
        elif tally is not None:
            grid.add_row(tally.name, ProgressBar(total=tally.total, completed=tally.done), self._rollouts(tally))
        return grid

    def _rollouts(self, tally: Tally) -> str:
        done = f"{tally.done}/{tally.total} rollouts"
        rest = tally.total - tally.done
        if self._concurrency is None or not rest:
            return done
        running = min(self._concurrency, rest)
        queued = f", {rest - running} queued" if rest > running else ""
        return f"{done}  [dim]{running} running{queued}[/]"

    def _lines(self) -> list[RenderableType]:
        tally = self.tally
        if tally is None:
            return []
        elapsed = (time.time() if self._phase is None else tally.last_at) - tally.started_at
        speed = f"  {tally.speed:.0f} tokens/s" if tally.speed is not None else ""
        line = Text.assemble("reward ", (tally.reward, "bold cyan"), (f"{speed}  {format_duration(elapsed)}", "dim"))
        trouble = format_failures(self.failures, self.retried)
        lines = [line, Text(f"failures so far: {trouble}", style="yellow")] if trouble else [line]
        for each in lines:
            each.truncate(self.console.width, overflow="ellipsis")
        return list(lines)
