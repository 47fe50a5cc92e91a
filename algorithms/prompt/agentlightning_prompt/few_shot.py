"""Few-shot: demonstrations chosen from an agent's best rollouts, put between its system prompt and its task."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.config import changed_keys, refuse_without_effect
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.recorded import begin_of
from agentlightning.records import Policy, Task
from agentlightning.serving import server_for_agents
from agentlightning_prompt.bootstrap import DEFAULT_ROLLOUTS, LOOKED_AT, Bootstrap
from agentlightning_prompt.demonstration_search import Choice, DemonstrationSearch
from agentlightning_prompt.elimination import LEAST_PLAN, LEAST_TASKS
from agentlightning_prompt.few_shot_config import FewShotConfig
from agentlightning_prompt.pool import Shown
from agentlightning_prompt.roles import Role

logger = logging.getLogger(__name__)

MOST_VALIDATION_TASKS = 64
FILE = "demonstrations.jsonl"
"""What was chosen, as ``labelled`` takes it, in the run's folder."""
_OF_MODEL = ("engine", "server", "temperature", "bootstrap_temperature")
_OF_ROLLOUTS = ("bootstrap_samples", "batch_tasks")


class FewShot(Algorithm):
    """Looks for demonstrations (`agentlightning_prompt.bootstrap`), then for the set of them that is the best
    (`agentlightning_prompt.elimination`), and publishes it where it is better than none.

    Raises `ConfigError` for an option that has no effect, and for what the server of the model refuses.
    """

    Config: ClassVar[type[msgspec.Struct]] = FewShotConfig
    config: FewShotConfig

    def __init__(self, config: FewShotConfig) -> None:
        super().__init__(config)
        _check(config)
        self._server = server_for_agents(config, with_model=_OF_MODEL)
        self._left: dict[str, int | None] = {}

    async def run(self, run: Run) -> None:
        validation = _set_apart(run, self.config.validation_tasks)
        self._left = dict(run.restored.state) if run.restored is not None else {}
        policy: Policy | None = None
        try:
            if self._server is not None:
                run.phase("loading the model")
                policy = (await self._server.start()).sampled_with(temperature=self.config.temperature)
                await run.publish(policy)
            await run.check()
            await run.evaluate(step=0, samples=self.config.samples)
            await self._learn(run, policy, validation)
        finally:
            if self._server is not None:
                await self._server.aclose()

    async def _learn(self, run: Run, policy: Policy | None, validation: Sequence[Task]) -> None:
        bootstrap = Bootstrap(run, self.config, policy, [*validation, *run.held_out])
        left = await self._rollouts_left(run, "bootstrap", 0)
        rollouts, most = self._for_bootstrap(left)
        if most < LOOKED_AT:
            run.stopped(step=0, reason=f"the budget of {left} rollouts is too small to tell anything")
            run.result("demonstrations", "none: the budget is too small to look for any")
            return
        await bootstrap.find(rollouts, most=most if self.config.bootstrap_rollouts is None else rollouts)
        if not bootstrap.found_any:
            if left is None:
                raise AlgorithmError(bootstrap.why_nothing())
            run.stopped(step=bootstrap.step, reason=f"the budget leaves too few rollouts; {bootstrap.why_nothing()}")
            run.result("demonstrations", "none: nothing worth showing was found within the budget")
            return
        left = await self._rollouts_left(run, "search", bootstrap.step)
        search = DemonstrationSearch(run, self.config, bootstrap.roles, bootstrap.pool, validation)
        choice = await search.choose(first_step=bootstrap.step + 1, rollouts=left)
        if choice.shown is None:
            run.result("demonstrations", f"none: {choice.reason}")
            return
        await self._publish(run, bootstrap.roles, choice.shown, choice)

    async def _rollouts_left(self, run: Run, stage: str, step: int) -> int | None:
        """What was left of the budget when a stage began, whether or not the run was cut off since."""
        if stage not in self._left:
            self._left[stage] = await run.rollouts_left()
            await run.checkpoint(step, self._left)
        return self._left[stage]

    def _for_bootstrap(self, left: int | None) -> tuple[int, int]:
        """How many rollouts demonstrations are looked for in, and in how many at most: those that the least search
        needs are left."""
        wanted = self.config.bootstrap_rollouts
        if wanted is None:
            wanted = DEFAULT_ROLLOUTS if _bootstraps(self.config) else 0
            if left is not None:
                wanted = min(wanted, left // 3)
        if left is None:
            return wanted, max(wanted, LOOKED_AT)
        most = left - LEAST_PLAN.rollouts
        return min(wanted, most), most

    async def _publish(self, run: Run, roles: Sequence[Role], shown: Shown, choice: Choice) -> None:
        lines = []
        for role in roles:
            chosen = shown.get(role.name, ())
            if chosen:
                prompt = role.prompt(demonstrations=[one.messages for one in chosen])
                await run.publish(msgspec.structs.replace(prompt, version=1))
                lines += [msgspec.json.encode({"agent": role.name, "messages": one.messages}) for one in chosen]
        counts = ", ".join(f"{len(several)} for {role}" for role, several in shown.items() if several)
        (run.directory / FILE).write_bytes(b"\n".join(lines) + b"\n")
        run.result("demonstrations", f"{counts}: {choice.reason}")
        run.result("file", str(run.directory / FILE))
        await run.evaluate(step=choice.step, samples=self.config.samples)


def _check(config: FewShotConfig) -> None:
    """Raises `ConfigError` for what has no effect, or cannot be."""
    if not _bootstraps(config):
        if config.labelled is None and config.from_live is None:
            raise ConfigError(
                "algorithm.bootstrap_rollouts: 0 of them find no demonstrations: name labelled or from_live"
            )
        _refuse(config, _OF_ROLLOUTS, "demonstrations are looked for in rollouts (bootstrap_rollouts)")
        if config.from_live is None:
            _refuse(config, ("threshold",), "demonstrations come from rollouts, not by hand alone")
    if config.from_live is not None:
        begin_of(config.from_live.since)
        if config.from_live.top is not None:
            _refuse(config, ("threshold",), "from_live.top is not given")
    if len(set(config.counts)) < len(config.counts) or not config.counts:
        raise ConfigError(f"algorithm.counts: expected different numbers, one at least, got {config.counts}")
    if config.max_demonstration_characters > config.max_characters:
        raise ConfigError(
            f"algorithm.max_demonstration_characters: {config.max_demonstration_characters} is more than all together "
            f"may have (max_characters, {config.max_characters})"
        )


def _refuse(config: FewShotConfig, names: Sequence[str], where: str) -> None:
    refuse_without_effect(changed_keys(config), dict.fromkeys(names, where), at="algorithm")


def _bootstraps(config: FewShotConfig) -> bool:
    """Whether demonstrations are looked for in rollouts of the run."""
    if config.bootstrap_rollouts is None:
        return config.labelled is None and config.from_live is None
    return config.bootstrap_rollouts > 0


def _set_apart(run: Run, count: int | None) -> list[Task]:
    total = len(run.tasks)
    wanted = min(total // 2, MOST_VALIDATION_TASKS) if count is None else count
    if wanted < LEAST_TASKS or total - wanted < 2:
        raise ConfigError(
            f"algorithm.validation_tasks: {wanted} of {total} training tasks to compare by: expected at least "
            f"{LEAST_TASKS}, and 2 others to run: give more tasks"
        )
    return run.set_apart(wanted)
