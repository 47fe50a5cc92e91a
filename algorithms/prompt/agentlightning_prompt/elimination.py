"""Which of several candidates is the best, and whether it is better than none, for a number of rollouts known before.

Successive halving (Karnin, Koren & Somekh 2013; Jamieson & Talwalkar 2016): every candidate on a few tasks, the better
ones on more. All are compared on the same tasks. The one that is left is compared with none on tasks that it was not
chosen by: the best of many noisy means is too high. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from agentlightning.report import mcnemar_exact, sign_flip

Scores = Mapping[str, float | None]
"""What a candidate got, by the task's id; None where that says nothing of it."""

FIRST_ROUND = 8
"""Tasks of the first round, at least, where there are as many."""
FEWEST_CANDIDATES = 4
FEWEST_TASKS = 24
"""Where the rollouts are too few for all that was asked for, first candidates are left out down to so many, then tasks
down to so many; then again, down to one candidate and `LEAST_TASKS`."""
LEAST_TASKS = 12


class Round(msgspec.Struct, frozen=True):
    """So many candidates on so many more tasks, after which ``kept`` of them are left."""

    candidates: int
    tasks: int
    kept: int


class Plan(msgspec.Struct, frozen=True):
    """The rounds, and on how many other tasks the one that is left is ``confirmed``."""

    candidates: int
    rounds: tuple[Round, ...]
    confirmed: int

    @property
    def rollouts(self) -> int:
        """What it costs at most, none of the candidates (what is there) included."""
        return sum((one.candidates + 1) * one.tasks for one in self.rounds) + 2 * self.confirmed


def plan(candidates: int, tasks: int, *, rollouts: int | None) -> Plan | None:
    """The plan for so many candidates and tasks, or for fewer where that costs more than ``rollouts``; None where they
    do not suffice to tell anything."""
    count, total = candidates, tasks
    while True:
        made = _plan(count, total)
        if rollouts is None or made.rollouts <= rollouts:
            return made
        if count > FEWEST_CANDIDATES:
            count -= 1
        elif total > FEWEST_TASKS:
            total -= 2
        elif count > 1:
            count -= 1
        elif total > LEAST_TASKS:
            total -= 2
        else:
            return None


def _plan(candidates: int, tasks: int) -> Plan:
    choosing = tasks // 2
    number = max(1, min(math.ceil(math.log2(max(candidates, 2))), int(math.log2(max(choosing / FIRST_ROUND, 1))) + 1))
    done, left, rounds = 0, candidates, []
    for place in range(1, number + 1):
        until = choosing // 2 ** (number - place)
        kept = 1 if place == number else math.ceil(candidates ** (1 - place / number))
        rounds.append(Round(left, until - done, kept))
        done, left = until, kept
    return Plan(candidates=candidates, rounds=tuple(rounds), confirmed=tasks - choosing)


LEAST_PLAN = _plan(1, LEAST_TASKS)
"""What tells anything at all."""


def mean(scores: Scores) -> float:
    """The mean of what is known; minus infinity where nothing is."""
    known = [value for value in scores.values() if value is not None]
    return math.fsum(known) / len(known) if known else -math.inf


def differences(one: Scores, other: Scores) -> np.ndarray:
    """``one`` − ``other`` on the tasks that both have, (N,)."""
    pairs = [(value, other.get(task)) for task, value in one.items()]
    return np.array([value - there for value, there in pairs if value is not None and there is not None])


def p_better(one: Scores, other: Scores) -> float:
    """One-sided p of ``one`` being better than ``other`` on the tasks that both have: McNemar's exact test where they
    differ by 1 or not at all, else the sign-flip test of the mean difference."""
    found = differences(one, other)
    if not len(found) or found.mean() <= 0:
        return 1.0
    if np.isin(found, (-1.0, 0.0, 1.0)).all():
        return mcnemar_exact(int((found > 0).sum()), int((found < 0).sum())) / 2
    return sign_flip(found) / 2


def survivors(scores: Sequence[Scores], costs: Sequence[float], *, keep: int, alpha: float) -> list[int]:
    """The places of the ``keep`` best, the best first; of equal ones that of the lower cost. Those that are
    significantly worse than the best are none of them."""
    ranked = sorted(range(len(scores)), key=lambda place: (-mean(scores[place]), costs[place], place))
    best = ranked[0]
    return [place for place in ranked[:keep] if place == best or p_better(scores[best], scores[place]) > alpha]
