"""Successive halving: the rounds of a fixed budget. Pure.

Karnin, Koren & Somekh 2013, "Almost optimal exploration in multi-armed bandits", algorithm 3; Jamieson & Talwalkar
2016, "Non-stochastic best arm identification and hyperparameter optimization", algorithm 1, with η = 2 in both. Each of
the ⌈log_η n⌉ rounds has the same share of the budget, divided evenly over the candidates that are left, and keeps the
best ⌈n / η⌉ of them by all that they have done. What a division leaves over goes to the rounds that follow, so a budget
is used up but for less than the number of the last ones.
"""

from __future__ import annotations

import math


def rounds_of(candidates: int, eta: int) -> int:
    """How many rounds leave one of so many."""
    rounds = 0
    while candidates > 1:
        candidates, rounds = kept(candidates, eta), rounds + 1
    return rounds


def kept(candidates: int, eta: int) -> int:
    """How many of so many stay after a round."""
    return math.ceil(candidates / eta)


def tasks_of_round(candidates: int, budget: int, eta: int) -> int:
    """On how many tasks each of the candidates that are left runs next; ``budget`` rollouts are left."""
    return budget // (max(rounds_of(candidates, eta), 1) * candidates)


def least_budget(candidates: int, eta: int) -> int:
    """With fewer rollouts than this a round would have no task."""
    return rounds_of(candidates, eta) * candidates
