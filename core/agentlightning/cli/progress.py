"""A run as lines of text: one for each step, where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentlightning.algorithm import Evaluation
from agentlightning.diagnostics import troubles
from agentlightning.formatting import format_duration, format_number
from agentlightning.progress import Progress
from agentlightning.records import Purpose, Rollout
from agentlightning.store.base import RunRecord

if TYPE_CHECKING:
    from rich.console import Console

RECENT_STEPS = 10
"""The time left is told by the median of so many steps."""


class Tally:
    """Counts of a collection's rollouts: how many ended, what they were worth, what went wrong.

    Rollouts that ended before the collection began (a resumed run finds them in its store) count, but their
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
        if rollout.is_scorable and rollout.outcome is not None:
            self.rewards.append(rollout.outcome)

    @property
    def reward(self) -> str:
        """``0.420 ± 0.210``: the mean outcome of the rollouts that could be scored, and its standard deviation."""
        if not self.rewards:
            return "–"
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = float(np.mean(self.rewards)), float(np.std(self.rewards))
        return f"{format_number(mean)} ± {format_number(spread)}"

    @property
    def trouble(self) -> str:
        """What went wrong, as `format_failures` has it."""
        return format_failures(self.failures, self.retried)

    @property
    def speed(self) -> float | None:
        """Tokens per second, from the collection's beginning to its last rollout; None before there are any."""
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


class Part(NamedTuple):
    """A part of a line; where there is no room for all, those of the lowest ``weight`` go."""

    text: str
    weight: int


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

    def collection(self, name: str, total: int, *, purpose: Purpose = "train") -> None:
        if purpose != "train":
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
        self.line(self._summary(step, steps, metrics))
        self._collected = None

    def stopped(self, step: int, reason: str) -> None:
        self.step_done = self.steps = step
        self.message(f"stopped after step {step}: {reason}")

    def evaluation(self, evaluation: Evaluation, metrics: Mapping[str, float] | None = None) -> None:
        tasks = "validation tasks" if evaluation.purpose == "validate" else "held-out tasks"
        name = f"{evaluation.variant}, " if evaluation.variant else ""
        mean = "no task could be scored" if evaluation.mean is None else f"mean reward {format_number(evaluation.mean)}"
        scored = sum(reward is not None for reward in evaluation.rewards)
        trouble = self.tally.trouble if self.tally is not None else ""
        parts = [
            Part(f"{tasks} after step {evaluation.step}: {name}{mean}", 9),
            Part(f"{scored} of {len(evaluation.tasks)} tasks scored", 7),
            *(Part(text, 8) for text in troubles(metrics or {})),
            *([Part(f"failures: {trouble}", 6)] if trouble else []),
        ]
        self.line(parts)
        self.pace.begin()

    def message(self, text: str) -> None:
        with suppress(OSError):  # the terminal was closed; the run goes on
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def line(self, parts: Sequence[Part]) -> None:
        """A line of parts; here all of them, however wide the line becomes."""
        self.message("  ".join(part.text for part in parts))

    def _summary(self, step: int, steps: int, metrics: Mapping[str, float]) -> list[Part]:
        tally = self._collected
        parts = [Part(f"step {step}/{steps}", 9)]
        if tally is not None:
            parts.append(Part(f"reward {tally.reward}", 9))
            parts.append(Part(f"rollouts {tally.done}", 2))
            if tally.speed is not None:
                parts.append(Part(f"{tally.speed:.0f} tokens/s", 3))
        parts += [
            Part(f"{name} {value:.3g}", 4 if name.endswith("loss") else 1) for name, value in shown_metrics(metrics)
        ]
        if self.pace.last is not None:
            parts.append(Part(format_duration(self.pace.last), 5))
        left = self.pace.left((self.steps or 0) - self.step_done)
        if left:
            parts.append(Part(f"{format_duration(left)} left", 6))
        parts += [Part(text, 8) for text in troubles(metrics)]
        trouble = tally.trouble if tally is not None else ""
        if trouble:
            parts.append(Part(f"failures: {trouble}", 7))
        return parts


def shown_metrics(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """The numbers of a step that fit on its line."""
    shown = ("loss", "kl", "grad_norm", "lr")  # of several policies each has its own
    return [(name, value) for name, value in metrics.items() if name.rpartition("/")[2] in shown]


def format_failures(failures: Counter[str], retried: int) -> str:
    """``2 tool_error, 1 timeout, 3 retried``: the most frequent first; empty when nothing went wrong."""
    parts = [f"{count} {type}" for type, count in failures.most_common()]
    return ", ".join([*parts, f"{retried} retried"] if retried else parts)
