"""What every search over the text of prompts has: roles that may be changed, a model that reflects, validation tasks
set apart, the budget, and a report of before and after."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.causes import explain_rollouts
from agentlightning.config import PositiveInt
from agentlightning.errors import AlgorithmError, BudgetError, ConfigError
from agentlightning.records import Task
from agentlightning.serving import TORCH, server_for_agents
from agentlightning_prompt.reflection import ReflectionConfig, Reflector, reflection_config
from agentlightning_prompt.roles import Role, chosen_roles, find_roles
from agentlightning_prompt.trials import Candidate, Trials, paired, trials_of

logger = logging.getLogger(__name__)

MOST_VALIDATION_TASKS = 24
"""Where the config says nothing of it."""
AS_IT_IS = "as it is"
"""The variant of the agent with its own prompts, on the validation tasks."""


class SearchConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``reflection`` is the model that proposes prompts: a model's name, or a section of its own; ``policy`` for that
    of ``model``, which answers the agent, too (as in `eval`: ``engine``, ``server`` and ``temperature`` are of it).

    ``prompts`` are names of agents, or of prompts that the code asks for by name; all that the first rollouts have
    where it is empty. ``validation_tasks`` are set apart from the training tasks, to choose by: half of them, and at
    most 24, where it is left out. A search ends after ``steps`` steps, or with the run's budget. Each step looks at
    ``minibatch`` training tasks; where the outcome of one is at least ``perfect_score`` there is nothing to be said of
    it. With ``show_expected`` the model that reflects sees the expected answers of training tasks. Held-out tasks are
    run ``samples`` times.
    """

    reflection: ReflectionConfig | str
    prompts: list[str] = []
    validation_tasks: PositiveInt | None = None
    minibatch: PositiveInt = 3
    steps: PositiveInt = 20
    perfect_score: float = 1.0
    show_expected: bool = True
    samples: PositiveInt = 1
    model: dict[str, Any] | None = None
    engine: dict[str, Any] = {}
    server: str = TORCH
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 1.0


@dataclass(frozen=True)
class Ground:
    """What a search stands on: the run, the roles, what was tried, the tasks to choose by, and who proposes."""

    run: Run
    roles: Sequence[Role]
    trials: Trials
    validation: Sequence[Task]
    reflector: Reflector

    def role(self, name: str) -> Role:
        return next(role for role in self.roles if role.name == name)


@dataclass(frozen=True)
class Winner:
    """The best candidate, and how many steps were done."""

    candidate: Candidate
    steps: int


class PromptSearch(Algorithm):
    """Tries prompts that a model proposes. ``search`` is what differs. Raises `ConfigError` for an option that has no
    effect, and for what the server of the model refuses."""

    Config: ClassVar[type[msgspec.Struct]] = SearchConfig
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._reflection = reflection_config(self.config.reflection, has_model=self.config.model is not None)
        self._server = server_for_agents(self.config, with_model=("engine", "server", "temperature"))

    @abstractmethod
    async def search(self, ground: Ground) -> Winner:
        """Looks for better prompts than the agent's own."""

    async def run(self, run: Run) -> None:
        config, reflection = self.config, self._reflection
        validation = self._set_apart(run)
        budget = await _budget(run)
        reflector: Reflector | None = None
        try:
            if self._server is not None:
                run.phase("loading the model")
                policy = (await self._server.start()).sampled_with(temperature=config.temperature)
                await run.publish(policy)
                if reflection.is_policy:
                    reflection = reflection.served_by(policy)
            reflector = Reflector(reflection, run.directory)
            await run.check()
            ground = await self._prepare(run, validation, reflector, budget)
            await run.evaluate(step=0, samples=config.samples)
            winner = await self.search(ground)
            await self._finish(ground, winner)
        finally:
            if reflector is not None:
                await reflector.aclose()
            if self._server is not None:
                await self._server.aclose()

    def _set_apart(self, run: Run) -> list[Task]:
        total, minibatch = len(run.tasks), self.config.minibatch
        wanted = self.config.validation_tasks
        if wanted is None:
            wanted = max(1, min(total // 2, MOST_VALIDATION_TASKS))
        if total - wanted < minibatch:
            raise ConfigError(
                f"algorithm.validation_tasks: of {total} training tasks {wanted} to choose by leave too few for "
                f"algorithm.minibatch, which is {minibatch}: give more tasks, or lower one of them"
            )
        return run.set_apart(wanted)

    async def _prepare(self, run: Run, validation: Sequence[Task], reflector: Reflector, budget: int | None) -> Ground:
        """Runs the agent as it is on the validation tasks: which prompts it has, and how good these are."""
        try:
            first = await run.evaluate(step=0, variant=AS_IT_IS, tasks=validation, purpose="validate")
        except BudgetError as error:
            raise BudgetError(f"{error}; or lower algorithm.validation_tasks") from error
        trials = trials_of(validation, first.rollouts)
        if all(trial.score is None for trial in trials):
            raise AlgorithmError(
                "no validation task could be scored, so no prompt can be told from another: "
                + explain_rollouts(first.rollouts)
            )
        observed = [(trial.rollout, await run.spans(trial.rollout)) for trial in trials]
        roles = _changeable(chosen_roles(find_roles(observed, agents=run.train), self.config.prompts))
        tried = Trials(run, roles, validation, budget=budget)
        tried.know(tried.own(), trials)
        for prompt in tried.prompts(tried.own()):
            await run.publish(prompt)
        return Ground(run=run, roles=roles, trials=tried, validation=validation, reflector=reflector)

    async def _finish(self, ground: Ground, winner: Winner) -> None:
        run, trials = ground.run, ground.trials
        if winner.candidate == trials.own():
            run.result("prompts", "unchanged: no other was better on the validation tasks")
            return
        before, after = (
            sum(scores) / len(scores)
            for scores in zip(
                *paired(trials.found(trials.own()), trials.found(winner.candidate, ground.validation)), strict=True
            )
        )
        prompts = trials.prompts(winner.candidate)
        for prompt in prompts:
            await run.publish(prompt)
        changed = [f"{prompt.name} version {prompt.version}" for prompt in prompts if prompt.version]
        run.result("prompts", f"{', '.join(changed)}: {before:.3f} → {after:.3f} on the validation tasks")
        await run.evaluate(step=winner.steps, samples=self.config.samples)


def better(trials: Trials, candidate: Candidate, than: Candidate, tasks: Sequence[Task]) -> bool:
    """Whether a candidate has the greater sum over the tasks on which both could be scored."""
    pairs = paired(trials.found(candidate, tasks), trials.found(than, tasks))
    return sum(one for one, _ in pairs) > sum(other for _, other in pairs)


def counted(ground: Ground) -> dict[str, float]:
    """What a search has cost so far."""
    trials = ground.trials
    return {
        "candidate_rollouts": trials.rollouts,
        "candidate_rollouts_unscored": trials.unscored,
        "candidate_rollouts_unused": trials.unused,
        **ground.reflector.metrics(),
    }


async def _budget(run: Run) -> int | None:
    """What was left of the budget when the run began, whether or not it was cut off since."""
    if run.restored is None:
        left = await run.rollouts_left()
        await run.checkpoint(0, {"rollouts_left": left})
        return left
    known: int | None = run.restored.state["rollouts_left"]
    return known


def _changeable(roles: Sequence[Role]) -> list[Role]:
    """The roles that have a text to begin with. Raises `AlgorithmError` where there is none."""
    for role in roles:
        if role.text is None:
            logger.warning("%s is left as it is: %s", role.name, role.refusal(""))
    found = [role for role in roles if role.text is not None]
    if not found:
        why = "; ".join(f"{role.name}: {role.refusal('')}" for role in roles) or "none of its calls was recorded"
        raise AlgorithmError(
            f"the agent has no prompt whose text could be changed ({why}); `agl prompts RUN` lists what it told its "
            "models"
        )
    return found
