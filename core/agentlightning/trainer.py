"""The Python face: ``Trainer(agent, tasks, reward, algorithm).fit()``."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from agentlightning import defaults
from agentlightning.adapter import Adapter
from agentlightning.agents import hook_in_adapters, load_agent
from agentlightning.algorithm import Algorithm, Evaluation
from agentlightning.check import CheckReport
from agentlightning.checkpoints import CHECKPOINTS
from agentlightning.config import (
    Config,
    PositiveInt,
    PromoteConfig,
    RewardConfig,
    RunnerConfig,
    Seed,
    decode_section,
    validated,
)
from agentlightning.data import load_split
from agentlightning.diagnostics import findings
from agentlightning.errors import AlgorithmError, ConfigError, advice
from agentlightning.local_runner import LocalRunner
from agentlightning.notebook import html_of
from agentlightning.plugins import Plugins, plugins
from agentlightning.progress import Progress
from agentlightning.prompts import published_prompts
from agentlightning.recording import outside
from agentlightning.records import Prompt, Record, decode, encode
from agentlightning.redaction import redact, redact_config
from agentlightning.report import Comparison, compare_evaluations, evaluations_of
from agentlightning.resume import (
    config_of,
    described_tasks,
    find_run_to_resume,
    name_of,
    objects_among,
    refuse_what_differs,
    usable_checkpoint,
)
from agentlightning.run import CheckDone, TrainingRun
from agentlightning.runner import NoOptions, Runner, RunnerSetup
from agentlightning.scoring import RewardLike, Scoring
from agentlightning.serving import Servable, ServedModel
from agentlightning.store import open_store
from agentlightning.store.base import Checkpoint, RunRecord, RunStatus, Store
from agentlightning.store.database import FOLDER_MODE
from agentlightning.threads import run_on_process_loop, use_daemon_threads
from agentlightning.versions import installed_versions, version_changes

logger = logging.getLogger(__name__)


class FitResult(Record, kw_only=True):
    """What came of a run: the before/after comparisons by variant, the algorithm's results.

    ``findings`` say, a sentence each, what speaks against its having learned anything
    (`agentlightning.diagnostics`).
    """

    run_id: str
    status: RunStatus
    evaluations: list[Evaluation] = []
    comparisons: list[Comparison] = []
    results: dict[str, str] = {}
    findings: list[str] = []
    directory: str = ""
    servable: Servable | None = None
    """What `serve` serves; None where the run trained no weights and chose no model."""

    def serve(self, *, name: str | None = None, port: int = 0) -> ServedModel:
        """Serves the model that was trained or chosen behind the OpenAI API, for an agent that nobody changes, until it
        is stopped.

        Raises `AlgorithmError` where there is none, or where there are several.
        """
        if self.servable is None:
            several = [folder for name, folder in self.results.items() if name.startswith("model/")]
            if several:
                raise AlgorithmError(
                    f"run {self.run_id} trained several models; serve one by its folder: {', '.join(several)}"
                )
            raise AlgorithmError(f"run {self.run_id} trained no weights and chose no model: there is nothing to serve")
        return ServedModel(self.servable, name=name, port=port)

    def _repr_html_(self) -> str:
        return html_of(self.comparisons, self.evaluations, {**self.results, "run": self.run_id}, self.findings)


class Trainer:
    """Makes an agent learn.

    ``agent`` is the agent itself, ``"module:attribute"``, or ``"module:attribute()"`` for what makes one; ``tasks`` and
    ``held_out`` what `agentlightning.data.load_tasks` takes; ``reward`` a function, a name, or several of them;
    ``algorithm`` a name, a dict ``{"name": …, option: …}`` or an `Algorithm`; ``train`` name patterns of the
    agents that are trained; ``prompts`` maps name patterns to system prompts in place of the agents' own, and
    ``prompts_from`` is a run of the same store whose published prompts they are given. Raises `ConfigError`,
    `DataError`, `AdapterError` or `PluginError` before anything runs when one of them is wrong.
    """

    def __init__(
        self,
        agent: Any,
        tasks: Any,
        reward: RewardLike | Sequence[RewardLike] = (),
        algorithm: str | dict[str, Any] | Algorithm = "grpo",
        *,
        held_out: Any = None,
        train: Sequence[str] = ("*",),
        prompts: Mapping[str, str] | None = None,
        prompts_from: str | None = None,
        budget: int | None = None,
        runner: RunnerConfig | None = None,
        promote: PromoteConfig | None = None,
        store: str | Store = defaults.STORE,
        directory: str | Path = defaults.DIRECTORY,
        name: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self._plugins = plugins()
        self._progress = progress
        self._agent: Any = agent
        self._adapter: Adapter | None = None
        self._directory = Path(directory)
        self._store = store
        self._train = list(train)
        self._prompts = [
            Prompt(name=f"prompt of {agent}", agents=(agent,), template=text) for agent, text in (prompts or {}).items()
        ]
        self._prompts_from = prompts_from
        self._seed = decode_section(seed, Seed, at="seed")
        self._budget = None if budget is None else decode_section(budget, PositiveInt, at="budget")
        self._runner_config = validated(runner or RunnerConfig(), at="runner")
        promote = validated(promote or PromoteConfig(), at="promote")
        self._runner = self._plugins.find("runners", self._runner_config.name)
        self._runner_options = decode_section(self._runner_config.config, self._runner.Options, at="runner.config")
        self._algorithm_name, self._algorithm = _algorithm(algorithm, self._plugins)
        self._name = name or self._algorithm_name
        # Before the rewards: one may live in the agent's module, which needs what the adapters prepare.
        hook_in_adapters(self._plugins)
        if self._runner.runs_agent_here:
            self._load_agent()
        rewards = [reward] if isinstance(reward, str | RewardConfig) or callable(reward) else list(reward)
        self._scoring = Scoring(rewards, self._plugins)
        self._tasks, self._held_out = load_split(tasks, held_out, seed)
        self._config = {
            "agent": agent if isinstance(agent, str) else name_of(agent),
            "tasks": described_tasks(self._tasks, tasks),
            "held_out": described_tasks(self._held_out, held_out),
            "reward": [one if isinstance(one, str | RewardConfig) else name_of(one) for one in rewards],
            "algorithm": {"name": self._algorithm_name, **msgspec.to_builtins(self._algorithm.config)},
            "train": self._train,
            "prompts": dict(prompts or {}),
            "prompts_from": prompts_from,
            "budget": self._budget,
            "runner": self._runner_config,
            "promote": promote,
            "directory": str(self._directory.absolute()),
            "objects": objects_among(agent=agent, tasks=tasks, held_out=held_out, reward=rewards, algorithm=algorithm),
        }

    @classmethod
    def from_record(cls, run: RunRecord, store: str | Store, *, progress: Progress | None = None) -> Trainer:
        """The trainer of a run, made again from its record; ``fit(resume=run.id)`` goes on with it.

        Raises `ConfigError` where the record cannot say all: a part was given as a Python object, or held a secret.
        """
        config, held_out = config_of(run)
        return cls.from_config(config, held_out=held_out, store=store, progress=progress)

    @classmethod
    def from_config(
        cls,
        config: Config,
        *,
        held_out: str | None = None,
        store: str | Store | None = None,
        progress: Progress | None = None,
    ) -> Trainer:
        """The same from a config file's content (`agentlightning.config.load_config`); ``store`` in place of its own,
        and ``held_out`` beside its tasks."""
        return cls(
            config.agent,
            config.tasks,
            config.reward,
            config.algorithm,
            held_out=held_out,
            train=config.train,
            prompts=config.prompts,
            prompts_from=config.prompts_from,
            budget=config.budget,
            runner=config.runner,
            promote=config.promote,
            store=store or config.store,
            directory=config.directory,
            name=config.name,
            seed=config.seed,
            progress=progress,
        )

    def _load_agent(self) -> None:
        self._agent, self._adapter = load_agent(self._agent, self._plugins)

    def fit(self, *, resume: bool | str | None = None) -> FitResult:
        """Trains; returns when done. ``resume`` goes on with a run: True for the last one of this name
        that did not end well, or a run's id.

        Works inside a running event loop (a notebook), too. All fits of a process share one event loop.
        """
        return run_on_process_loop(self.fit_async(resume=resume))

    async def fit_async(self, *, resume: bool | str | None = None) -> FitResult:
        """`fit` as a coroutine on the caller's loop."""
        use_daemon_threads(asyncio.get_running_loop())
        prompts = await self._given_prompts()
        store = open_store(self._store) if isinstance(self._store, str) else self._store
        try:
            record, restored = self._new_record(), None
            if resume:
                earlier = await find_run_to_resume(store, self._name, resume)
                refuse_what_differs(earlier, record)
                restored = await usable_checkpoint(store, earlier)
                changed = version_changes(earlier.versions, record.versions)
                if changed and self._progress is not None:
                    self._progress.message(f"run {earlier.id} goes on with other versions: {'; '.join(changed)}")
                record = msgspec.structs.replace(earlier, config=record.config, versions=record.versions)
            directory = _make_folder(self._directory / record.id)
            return await self._fit(store, await store.open_run(record), restored, directory, prompts)
        finally:
            if isinstance(self._store, str):
                await store.close()

    def check(self) -> CheckReport:
        """Runs the agent on one task in this process, as `fit` does before anything else, and says what happened.

        Nothing is learned, and nothing is left behind. Raises what `fit` would raise before its first rollout.
        """
        return run_on_process_loop(self.check_async())

    async def check_async(self) -> CheckReport:
        """`check` as a coroutine on the caller's loop."""
        use_daemon_threads(asyncio.get_running_loop())
        prompts = await self._given_prompts()
        if self._runner.needs_workers and self._adapter is None:
            self._load_agent()
        with TemporaryDirectory(prefix="agentlightning-check-", ignore_cleanup_errors=True) as folder:
            store = open_store(f"sqlite:///{folder}/store.db")
            try:
                record = await store.open_run(self._new_record())
                run = self._new_run(store, record, Path(folder), self._progress or Progress(), check_only=True)
                with suppress(CheckDone):
                    await self._learn(run, store, prompts)
            finally:
                await store.close()
        if run.checked is None:
            raise AlgorithmError(f"{self._algorithm_name} ran no rollout, so there is nothing to check")
        return run.checked

    def _new_run(
        self,
        store: Store,
        record: RunRecord,
        directory: Path,
        progress: Progress,
        *,
        restored: Checkpoint | None = None,
        check_only: bool = False,
    ) -> TrainingRun:
        setup = RunnerSetup(
            run=record,
            agent=self._agent,
            adapter=self._adapter,
            scoring=self._scoring,
            store=store,
            store_url=self._store if isinstance(self._store, str) else None,
            notify=self._plugins.notify,
            message=progress.message,
            config=self._runner_config,
        )
        if check_only and self._runner.needs_workers:  # nobody else sees the store of a check
            runner: Runner = LocalRunner(setup, NoOptions())
        else:
            runner = self._runner(setup, self._runner_options)
        return TrainingRun(
            record,
            store,
            runner,
            progress,
            tasks=self._tasks,
            held_out=self._held_out,
            train=self._train,
            directory=directory,
            restored=restored,
            check_only=check_only,
            budget=self._budget,
        )

    async def _given_prompts(self) -> list[Prompt]:
        """Those of the config, then those of the run that it names. Raises `ConfigError`."""
        if self._prompts_from is None:
            return self._prompts
        store = open_store(self._store) if isinstance(self._store, str) else self._store
        try:
            return [*self._prompts, *await published_prompts(store, self._prompts_from)]
        finally:
            if isinstance(self._store, str):
                await store.close()

    async def _learn(self, run: TrainingRun, store: Store, prompts: Sequence[Prompt]) -> None:
        await store.add_tasks(run.id, [*self._tasks, *self._held_out])
        for prompt in prompts:
            await run.publish(prompt)
        async with run.running():
            with outside():  # an algorithm's own model calls are part of no rollout
                await self._algorithm.run(run)

    async def _fit(
        self,
        store: Store,
        record: RunRecord,
        restored: Checkpoint | None,
        directory: Path,
        prompts: Sequence[Prompt],
    ) -> FitResult:
        progress = self._progress or Progress()
        run = self._new_run(store, record, directory, progress, restored=restored)
        status: Literal["succeeded", "failed", "cancelled"] = "failed"
        message: str | None = None
        progress.start(record, concurrency=self._runner_config.concurrency)
        try:
            await self._learn(run, store, prompts)
            await store.update_run(record)
            status = "succeeded"
        except (asyncio.CancelledError, KeyboardInterrupt):
            status, message = "cancelled", f"go on with --resume {record.id}"
            raise
        except Exception as error:
            message = redact(advice(error) or f"{type(error).__name__}: {error}")
            raise
        finally:
            record.status, record.message = status, message
            await store.close_run(record.id, status, message)
            if status == "succeeded":  # it keeps what it made; the state to go on from is larger than that
                await asyncio.to_thread(shutil.rmtree, directory / CHECKPOINTS, ignore_errors=True)
            self._plugins.notify("run_finished", run=record)
            progress.stop()
        tasks = {task.id: task for task in self._held_out}
        evaluations = evaluations_of(await store.rollouts(record.id, purpose="evaluate"), tasks)
        servable = None
        with suppress(ConfigError):  # it trained no weights and chose no model
            servable = Servable.of_run(record, await store.published(record))
        return FitResult(
            run_id=record.id,
            status=status,
            evaluations=evaluations,
            comparisons=compare_evaluations(evaluations),
            results=record.results,
            findings=findings(await store.metrics(record.id), evaluations),
            directory=str(directory),
            servable=servable,
        )

    def _new_record(self) -> RunRecord:
        return RunRecord(
            id=f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self._name)}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}",
            name=self._name,
            algorithm=self._algorithm_name,
            config=redact_config(decode(encode(self._config), dict[str, Any])),
            seed=self._seed,
            versions=installed_versions(dict.fromkeys(plugin.distribution for plugin in self._plugins.installed())),
            held_out=[task.id for task in self._held_out],
            created_at=time.time(),
        )


def _make_folder(path: Path) -> Path:
    try:
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"directory: {path} cannot be made: {error.strerror or error}; name another folder"
        ) from error
    return path


def _algorithm(algorithm: str | dict[str, Any] | Algorithm, loaded: Plugins) -> tuple[str, Algorithm]:
    if isinstance(algorithm, Algorithm):
        return type(algorithm).__name__.lower(), algorithm
    section = {"name": algorithm} if isinstance(algorithm, str) else dict(algorithm)
    name = section.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("algorithm.name: missing; `agl plugins` lists the algorithms that are installed")
    kind: type[Algorithm] = loaded.find("algorithms", name)
    return name, kind.from_section(section)
