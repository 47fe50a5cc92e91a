"""What an algorithm is, and what a run gives it.

An algorithm is a class with a typed config and one coroutine whose body reads like the paper's
pseudo-code::

    class Best(Algorithm):
        Config = BestConfig

        async def run(self, run: Run) -> None:
            await run.publish(first)
            await run.check()
            await run.evaluate(step=0)
            async for group in run.collect(run.tasks, group_size=8, step=1):
                ...
            await run.publish(better)
            await run.evaluate(step=1)

`Run.collect` is deterministic in what it asks for: the n-th collection of a step names its rollouts by
(run, step, n, task, sample). After a crash the algorithm starts again from its last checkpoint, asks for the
same rollouts, and gets those that were finished as they were recorded; only the rest are run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import msgspec

from agentlightning.config import NoConfig, decode_section, validated
from agentlightning.credit import BranchPoint
from agentlightning.errors import ConfigError
from agentlightning.recorded import FromLive
from agentlightning.records import AnyResource, Purpose, Record, Rollout, Span, Task
from agentlightning.store.base import Checkpoint, Recorded
from agentlightning.training_rows import Group, RolloutRows


class Evaluation(Record, kw_only=True):
    """The rollouts of one evaluation, after ``step`` training steps. ``rewards[i]`` is the mean over the samples of
    task i, None where no sample of it could be scored. Only those of the purpose ``evaluate`` are reported."""

    step: int
    variant: str = ""
    purpose: Purpose = "evaluate"
    tasks: list[Task]
    rollouts: list[Rollout]
    rewards: list[float | None]

    @property
    def mean(self) -> float | None:
        """The mean reward over the tasks that could be scored."""
        scored = [value for value in self.rewards if value is not None]
        return sum(scored) / len(scored) if scored else None


class Run(Protocol):
    """One training run, as its algorithm sees it."""

    id: str
    seed: int
    directory: Path
    """A folder of this run's own, for what the algorithm makes (the trained model, say)."""
    tasks: Sequence[Task]
    held_out: Sequence[Task]
    train: Sequence[str]
    """Name patterns of the agents that are trained; ``*`` for all."""
    restored: Checkpoint | None
    """Where to go on from; None at the beginning."""

    def set_apart(self, count: int) -> list[Task]:
        """Takes so many tasks out of ``tasks``, and so out of every batch: chosen by the run's seed, the same for the
        same tasks. To be called before anything is run."""
        ...

    async def rollouts_left(self) -> int | None:
        """How many rollouts are left of the run's budget for collections, branches and validations; None where it has
        none. What is asked for again after a crash was paid for before. Asking for more raises `BudgetError`, and
        nothing of it is run."""
        ...

    def batches(self, size: int) -> Callable[[int], list[Task]]:
        """Task batches by step: reshuffled each epoch by the run's seed, the same for the same step."""
        ...

    def collect(
        self,
        tasks: Sequence[Task],
        *,
        step: int,
        group_size: int = 1,
        resources: Sequence[AnyResource] = (),
        key: str | None = None,
    ) -> AsyncGenerator[Group, None]:
        """Runs the agent ``group_size`` times on each task; yields the groups in the order of ``tasks``, each when it
        and those before it are whole.

        The published resources apply, with ``resources`` over them. Each call is a collection of its own; ``key``
        names it, unique in the run, and asking for a known key again gives what was recorded. Raises `AlgorithmError`
        where the known one had other tasks, another group size, another step or other resources.

        To stop early, leave the block ``async with contextlib.aclosing(run.collect(…)) as groups``: what is running is
        cancelled before it ends, and runs when the collection is asked for again.
        """
        ...

    async def branch(self, points: Sequence[BranchPoint], *, count: int, step: int) -> list[list[RolloutRows]]:
        """Runs the agent ``count`` times from each point: the calls before it get the answers that they got, which
        costs no sampling, and what follows is sampled under the published resources.

        Gives, by point, those that ended well, by sample. One that makes a call which its origin did not make before
        the point has diverged, and is left out. The agent's code and its tools do run again.
        """
        ...

    async def check(self) -> None:
        """Runs the agent once, before anything is spent, and says what happened: who acted, which calls went where.

        To be called when the first resource is published, and before anything is collected or evaluated. Raises
        `CheckError` where the run would be pointless. The rollout counts for nothing.
        """
        ...

    async def evaluate(
        self,
        *,
        step: int,
        variant: str = "",
        resources: Sequence[AnyResource] = (),
        tasks: Sequence[Task] | None = None,
        samples: int = 1,
        purpose: Purpose = "evaluate",
    ) -> Evaluation:
        """Runs the agent on the held-out tasks, or on ``tasks``, after ``step`` training steps. The report pairs the
        lowest with the highest step of a ``variant``; what is run with the purpose ``validate`` is no part of it."""
        ...

    async def spans(self, rollout: Rollout) -> list[Span]:
        """What happened in a rollout of this run, by index."""
        ...

    async def recorded(self, which: FromLive, *, threshold: float | None) -> list[Recorded]:
        """The best of what was recorded of a deployed agent (`agentlightning.recorded.best_recorded`), chosen once: a
        run that goes on learns from the same."""
        ...

    async def publish(self, resource: AnyResource) -> None:
        """Makes a version of a resource the one that next rollouts use."""
        ...

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Keeps numbers of a step, for the store, the terminal and the curve.

        The run adds what it counted of the rollouts since the last step (`agentlightning.diagnostics`)."""
        ...

    def progress(self, *, step: int, steps: int) -> None:
        """Says how far the run is."""
        ...

    def stopped(self, *, step: int, reason: str) -> None:
        """Says that no step follows on ``step``, though there could be more, and why; the run's result ``stopped``."""
        ...

    def phase(self, name: str, *, done: int = 0, total: int = 0) -> None:
        """Says what goes on where no rollout is running: ``update``, say, of whose ``total`` parts so many are
        ``done``. From any thread; it lasts until the next phase, collection, evaluation or end of a step."""
        ...

    async def checkpoint(
        self, step: int, state: Mapping[str, Any], write: Callable[[Path], None] | None = None
    ) -> None:
        """Makes a point to go on from: ``write(folder)`` writes large files, made durable and visible at once.

        Earlier checkpoints of the run are removed after, and all of them when it has succeeded: what the run is for
        belongs in ``directory``.
        """
        ...

    def result(self, name: str, value: str) -> None:
        """Says what came of the run (``model``: the folder of the trained weights); shown at its end."""
        ...


class Algorithm(ABC):
    """Base of every algorithm. ``Config`` is a `msgspec.Struct` with ``forbid_unknown_fields=True`` whose
    fields are the keys of the config's ``algorithm`` section, next to ``name``."""

    Config: ClassVar[type[msgspec.Struct]] = NoConfig

    def __init__(self, config: Any) -> None:
        """Raises `ConfigError` for a value that the config's types do not allow."""
        self.config = validated(config, at="algorithm")

    @classmethod
    def from_section(cls, section: Mapping[str, Any]) -> Self:
        """The algorithm that a config's ``algorithm`` section describes, without its ``name``. Raises `ConfigError`."""
        known = {field.encode_name for field in msgspec.structs.fields(cls.config_type(section))}
        if "from_live" in section and "from_live" not in known:
            raise ConfigError(
                f"algorithm.from_live: {cls.__name__} learns from the rollouts of its own run; what was recorded of a "
                "deployed agent, or imported, is text that others wrote, and how likely each of its tokens was is not "
                "known: `sft` and `few_shot` learn from it"
            )
        return cls(decode_section(dict(section), cls.config_type(section), at="algorithm"))

    @classmethod
    def config_type(cls, section: Mapping[str, Any]) -> type[msgspec.Struct]:
        """The type of the config, where it depends on what the section says."""
        return cls.Config

    @abstractmethod
    async def run(self, run: Run) -> None:
        """Learns from the run's tasks until done."""
