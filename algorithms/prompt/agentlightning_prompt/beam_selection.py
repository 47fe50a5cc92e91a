"""Which of many candidates are the best, found with few rollouts: bandits that look for the best arms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentlightning.records import Task
from agentlightning_prompt.trials import Candidate, Trials, digest_of


class Arms:
    """Candidates, each run on the same tasks in the same order, so that any two are compared on what both have done."""

    def __init__(self, trials: Trials, candidates: Sequence[Candidate], tasks: Sequence[Task], *, step: int) -> None:
        self._trials = trials
        self._tasks = tasks
        self._step = step
        self.candidates = list({digest_of(candidate): candidate for candidate in candidates}.values())
        self._pulls = [0] * len(self.candidates)
        self._before = trials.rollouts

    @property
    def spent(self) -> int:
        """How many rollouts were paid for since the beginning."""
        return self._trials.rollouts - self._before

    async def pull(self, arm: int, tasks: int) -> None:
        """Runs a candidate on so many further tasks, on fewer where there are no more."""
        done = self._pulls[arm]
        found = await self._trials.run(self.candidates[arm], self._tasks[done : done + tasks], step=self._step)
        self._trials.compared.update(trial.rollout.id for trial in found)
        self._pulls[arm] = min(done + tasks, len(self._tasks))

    def count(self, arm: int) -> int:
        """On how many tasks a candidate was run."""
        return self._pulls[arm]

    def exhausted(self, arm: int) -> bool:
        """Whether a candidate was run on all tasks."""
        return self._pulls[arm] == len(self._tasks)

    def mean(self, arm: int) -> float:
        """The mean score of a candidate; minus infinity where it has none."""
        found = self._trials.found(self.candidates[arm], self._tasks[: self._pulls[arm]])
        scores = [trial.score for trial in found if trial.score is not None]
        return sum(scores) / len(scores) if scores else -math.inf

    def best(self, count: int, among: Sequence[int] | None = None) -> list[int]:
        """The arms of the greatest means, the first of those that are equal."""
        arms = range(len(self.candidates)) if among is None else among
        return sorted(arms, key=lambda arm: (-self.mean(arm), arm))[:count]


async def ucb(arms: Arms, *, beam: int, rollouts: int, exploration: float) -> list[Candidate]:
    """The ``beam`` best arms by upper confidence bounds (Pryzant et al. 2023, algorithm 3): again and again the arm of
    the greatest mean + ``exploration`` · √(log t / N) is run on a few further tasks, for at most ``rollouts``."""
    count = len(arms.candidates)
    tasks = max(1, min(4, rollouts // max(1, count)))
    for arm in range(count):
        if arms.spent + tasks <= rollouts:
            await arms.pull(arm, tasks)
    while arms.spent + tasks <= rollouts:
        open_arms = [arm for arm in range(count) if arms.count(arm) and not arms.exhausted(arm)]
        if not open_arms:
            break
        total = sum(arms.count(arm) for arm in range(count))

        def bound(arm: int, total: int = total) -> float:
            return arms.mean(arm) + exploration * math.sqrt(math.log(total) / arms.count(arm))

        await arms.pull(max(open_arms, key=lambda arm: (bound(arm), -arm)), tasks)
    return [arms.candidates[arm] for arm in arms.best(beam)]


async def successive_rejects(arms: Arms, *, beam: int, rollouts: int) -> list[Candidate]:
    """The ``beam`` best arms by successive rejects (Audibert, Bubeck & Munos 2010; Pryzant et al. 2023, algorithm 4):
    in each phase all arms left are run on as many further tasks, then the worst is dropped, until ``beam`` are left.

    With K arms and n rollouts, each arm of phase k has been run on ⌈(n − K) / (loḡ(K) · (K + 1 − k))⌉ tasks, where
    loḡ(K) = ½ + Σ_{i=2}^{K} 1/i.
    """
    count = len(arms.candidates)
    left = list(range(count))
    harmonic = 0.5 + sum(1 / i for i in range(2, count + 1))
    for phase in range(1, count - beam + 1):
        target = math.ceil(max(1, rollouts - count) / (harmonic * (count + 1 - phase)))
        for arm in left:
            further = min(target - arms.count(arm), rollouts - arms.spent)
            if further > 0:
                await arms.pull(arm, further)
        left = sorted(arms.best(len(left) - 1, left))
    return [arms.candidates[arm] for arm in arms.best(beam, left)]
