"""Candidates tried: what each of them gives on a task, from real rollouts, each paid for once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from agentlightning.algorithm import Run
from agentlightning.records import Prompt, Record, Rollout, Span, Task
from agentlightning_prompt.roles import Role

Candidate = Mapping[str, str]
"""The text of each role, by its name."""


class Trial(Record, kw_only=True):
    """A candidate on a task. ``score`` is the outcome of its rollout; None where that could not be scored."""

    task: Task
    rollout: Rollout
    score: float | None


class Trials:
    """What candidates gave so far. A candidate is run once on a task: whoever asks again is told what was recorded.

    ``validation`` are tasks for choosing among candidates. All others are trained on. A collection's key follows from
    what it is of, so that a run that goes on, which asks for the same, is given it.
    """

    def __init__(self, run: Run, roles: Sequence[Role], validation: Sequence[Task], *, budget: int | None) -> None:
        """``budget`` is what was left of the run's when it began."""
        self._run = run
        self._budget = budget
        self._roles = list(roles)
        self._validation = [task.id for task in validation]
        self._found: dict[tuple[str, str], Trial] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self.compared: set[str] = set()
        """Ids of the rollouts that a decision rests on, or that were shown to the model that reflects."""
        for role in roles:
            self._version(role, role.text or "")

    @property
    def rollouts(self) -> int:
        """How many rollouts were paid for."""
        return len(self._found)

    @property
    def unscored(self) -> int:
        """How many of them could not be scored."""
        return sum(trial.score is None for trial in self._found.values())

    @property
    def unused(self) -> int:
        """How many of them were of no use: they could be scored, and nothing was decided by them."""
        return sum(trial.score is not None and trial.rollout.id not in self.compared for trial in self._found.values())

    def own(self) -> dict[str, str]:
        """What the agent's prompts say by themselves."""
        return {role.name: role.text or "" for role in self._roles}

    def prompts(self, candidate: Candidate) -> list[Prompt]:
        """The resources that make the agent's prompts those of a candidate."""
        return [
            msgspec.structs.replace(
                role.prompt(candidate[role.name] or None), version=self._version(role, candidate[role.name])
            )
            for role in self._roles
        ]

    def know(self, candidate: Candidate, trials: Sequence[Trial]) -> None:
        """Takes in what a candidate gave elsewhere."""
        for trial in trials:
            self._found[digest_of(candidate), trial.task.id] = trial

    def found(self, candidate: Candidate, tasks: Sequence[Task] | None = None) -> list[Trial]:
        """What a candidate gave so far: on these tasks, or (None) on those of the validation."""
        digest = digest_of(candidate)
        ids = self._validation if tasks is None else [task.id for task in tasks]
        return [self._found[digest, id] for id in ids if (digest, id) in self._found]

    def unpaid(self, candidate: Candidate, tasks: Sequence[Task]) -> list[Task]:
        """Those of the tasks on which the candidate was not run yet, each once."""
        digest = digest_of(candidate)
        return list({task.id: task for task in tasks if (digest, task.id) not in self._found}.values())

    async def left(self) -> int | None:
        """How many rollouts are left of the budget; None for any number.

        A run that goes on and asks for what it has recorded is told what was left when it first did: it is to decide as
        it did then.
        """
        left = await self._run.rollouts_left()
        return None if left is None or self._budget is None else max(left, self._budget - self.rollouts)

    async def affordable(self, candidate: Candidate, tasks: Sequence[Task]) -> list[Task]:
        """The first of the tasks that the run's budget allows for, with those that are paid for already."""
        left = await self.left()
        unpaid = {task.id for task in self.unpaid(candidate, tasks)[left:]} if left is not None else ()
        return [task for task in tasks if task.id not in unpaid]

    async def run(self, candidate: Candidate, tasks: Sequence[Task], *, step: int) -> list[Trial]:
        """The candidate on each of the tasks, in their order. Raises `BudgetError`, and runs nothing, where the budget
        does not allow for all of them."""
        unpaid = self.unpaid(candidate, tasks)
        prompts = self.prompts(candidate)
        for members, validate in (
            ([task for task in unpaid if task.id not in self._validation], False),
            ([task for task in unpaid if task.id in self._validation], True),
        ):
            if members:
                key = _name_of(prompts)
                if len(members) < len(self._validation) or not validate:
                    key += f"/{digest_of({task.id: '' for task in members})}"
                self.know(candidate, await self._tried(prompts, members, key, step=step, validate=validate))
        digest = digest_of(candidate)
        return [self._found[digest, task.id] for task in tasks]

    async def spans(self, trial: Trial) -> list[Span]:
        """What happened in a trial's rollout."""
        return await self._run.spans(trial.rollout)

    async def _tried(
        self, prompts: Sequence[Prompt], tasks: Sequence[Task], key: str, *, step: int, validate: bool
    ) -> list[Trial]:
        if validate:
            evaluation = await self._run.evaluate(
                step=step, variant=key, resources=prompts, tasks=tasks, purpose="validate"
            )
            return trials_of(tasks, evaluation.rollouts)
        rollouts = [
            rollout
            async for group in self._run.collect(tasks, step=step, resources=prompts, key=f"candidates/{key}")
            for rollout in (*(member.rollout for member in group.rollouts), *group.excluded)
        ]
        return trials_of(tasks, rollouts)

    def _version(self, role: Role, text: str) -> int:
        known = self._versions
        if (role.name, text) not in known:
            known[role.name, text] = sum(name == role.name for name, _ in known)
        return known[role.name, text]


def _name_of(prompts: Sequence[Prompt]) -> str:
    """What a candidate is called, by the versions of its prompts that are not the agent's own."""
    changed = [f"{prompt.name} version {prompt.version}" for prompt in prompts if prompt.version]
    return ", ".join(changed) or "as it is"


def trials_of(tasks: Sequence[Task], rollouts: Sequence[Rollout]) -> list[Trial]:
    """The trials that rollouts of these tasks are."""
    by_id = {task.id: task for task in tasks}
    return [
        Trial(task=by_id[rollout.task_id], rollout=rollout, score=rollout.outcome if rollout.is_scorable else None)
        for rollout in rollouts
    ]


def paired(one: Sequence[Trial], other: Sequence[Trial]) -> list[tuple[float, float]]:
    """The scores of two candidates on the tasks on which both have one."""
    scores = {trial.task.id: trial.score for trial in other}
    return [
        (trial.score, score)
        for trial in one
        if trial.score is not None and (score := scores.get(trial.task.id)) is not None
    ]


def digest_of(candidate: Candidate) -> str:
    """12 hexadecimal digits, the same for the same texts."""
    return hashlib.blake2b(msgspec.json.encode(sorted(candidate.items())), digest_size=6).hexdigest()
