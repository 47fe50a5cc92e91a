"""Sets of demonstrations, compared by real rollouts of validation tasks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from agentlightning.algorithm import Run
from agentlightning.records import Prompt, Record, Task
from agentlightning_prompt.demonstrations import Demonstration
from agentlightning_prompt.elimination import Plan, differences, mean, p_better, plan, survivors
from agentlightning_prompt.few_shot_config import FewShotConfig
from agentlightning_prompt.pool import Pool, Shown, draw
from agentlightning_prompt.roles import Role

logger = logging.getLogger(__name__)

DRAWS = 20
"""How often a set is drawn again that is there already."""
POOL = 4
"""Sets are drawn from the best of a pool, so many times the largest set."""
NONE = "none"


class Choice(Record, kw_only=True):
    """What was chosen (None: no demonstrations), after which step, and why."""

    shown: dict[str, tuple[Demonstration, ...]] | None = None
    step: int
    reason: str


class DemonstrationSearch:
    """Draws candidates from a pool, and finds the best of them (`agentlightning_prompt.elimination`)."""

    def __init__(
        self, run: Run, config: FewShotConfig, roles: Sequence[Role], pool: Pool, validation: Sequence[Task]
    ) -> None:
        self._run = run
        self._config = config
        self._roles = list(roles)
        self._alpha = 1 - config.confidence
        order = np.random.default_rng([run.seed, 1]).permutation(len(validation))
        self._tasks = [validation[int(place)] for place in order]
        self._candidates = self._draw(pool)
        self._scores: list[dict[str, float | None]] = [{} for _ in self._candidates]
        self._of_none: dict[str, float | None] = {}

    async def choose(self, *, first_step: int, rollouts: int | None) -> Choice:
        """The best set where it is better than none, within so many rollouts."""
        made = plan(len(self._candidates), len(self._tasks), rollouts=rollouts)
        if made is None:
            reason = f"the budget leaves {rollouts} rollouts, too few to compare"
            self._run.stopped(step=first_step - 1, reason=reason)
            return Choice(step=first_step - 1, reason=reason)
        best = await self._eliminate(made, first_step)
        step = first_step + len(made.rounds)
        scores = self._scores[best]
        tried = f"the best of {made.candidates} sets has {mean(scores):.3f}, none {mean(self._of_none):.3f}"
        if not len(found := differences(scores, self._of_none)) or found.mean() <= 0:
            return Choice(step=step - 1, reason=f"no better than without: {tried} on {len(found)} validation tasks")
        return await self._confirm(best, made.confirmed, step)

    async def _eliminate(self, made: Plan, first_step: int) -> int:
        """The place of the best candidate."""
        left, done = list(range(made.candidates)), 0
        for number, one in enumerate(made.rounds):
            step = first_step + number
            tasks = self._tasks[done : done + one.tasks]
            done += one.tasks
            for place in left:
                self._scores[place] |= await self._try(self._candidates[place], tasks, step, f"set {place + 1}")
            self._of_none |= await self._try({}, tasks, step, NONE)
            kept = survivors(
                [self._scores[place] for place in left],
                [float(_characters(self._candidates[place])) for place in left],
                keep=one.kept,
                alpha=self._alpha,
            )
            left = [left[place] for place in kept]
            self._log(left[0], self._scores[left[0]], self._of_none, len(left), step)
            self._run.progress(step=step, steps=first_step + len(made.rounds))
        return left[0]

    async def _confirm(self, best: int, count: int, step: int) -> Choice:
        """Whether the best is better than none, on tasks that it was not chosen by."""
        tasks = self._tasks[-count:]
        found = await self._try(self._candidates[best], tasks, step, f"set {best + 1}")
        none = await self._try({}, tasks, step, NONE)
        p = p_better(found, none)
        self._log(best, found, none, 1, step)
        self._run.progress(step=step, steps=step)
        of = f"{mean(none):.3f} → {mean(found):.3f} on {len(differences(found, none))} validation tasks"
        if p > self._alpha:
            return Choice(step=step, reason=f"no better than without: {of} that it was not chosen by (p = {p:.2g})")
        return Choice(
            shown=dict(self._candidates[best]),
            step=step,
            reason=f"{of} that they were not chosen by (p = {p:.2g})",
        )

    async def _try(self, shown: Shown, tasks: Sequence[Task], step: int, variant: str) -> dict[str, float | None]:
        evaluation = await self._run.evaluate(
            step=step, variant=variant, tasks=tasks, resources=self._prompts(shown), purpose="validate"
        )
        return dict(zip([task.id for task in evaluation.tasks], evaluation.rewards, strict=True))

    def _prompts(self, shown: Shown) -> list[Prompt]:
        return [
            role.prompt(demonstrations=[one.messages for one in shown[role.name]])
            for role in self._roles
            if shown.get(role.name)
        ]

    def _draw(self, pool: Pool) -> list[Shown]:
        """Different sets, of each count in turn."""
        counts, rng = self._config.counts, np.random.default_rng([self._run.seed, 2])
        best = {role.name: pool.good(role.name)[: POOL * max(counts)] for role in self._roles}
        found: dict[str, Shown] = {}
        for number in range(self._config.candidates):
            for _ in range(DRAWS):
                shown = {
                    name: draw(several, counts[number % len(counts)], rng, max_characters=self._config.max_characters)
                    for name, several in best.items()
                }
                same = repr({name: sorted(one.identity for one in several) for name, several in shown.items()})
                if same not in found:
                    found[same] = shown
                    break
        return list(found.values())

    def _log(
        self, best: int, scores: dict[str, float | None], none: dict[str, float | None], left: int, step: int
    ) -> None:
        shown = self._candidates[best]
        logger.info("after step %d set %d leads: %.3f, none %.3f", step, best + 1, mean(scores), mean(none))
        means = {"validation_best": mean(scores), "validation_none": mean(none)}
        counts = {"candidates": float(left), "demonstrations": float(sum(map(len, shown.values())))}
        self._run.log(counts | {name: value for name, value in means.items() if math.isfinite(value)}, step=step)


def _characters(shown: Shown) -> int:
    return sum(one.characters for several in shown.values() for one in several)
