"""Several algorithms on one budget: their runs, one after the other, what each is worth, and what is recommended."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agentlightning.config import Config
from agentlightning.errors import AlgorithmError, ConfigError, advice
from agentlightning.levers.accounts import Account, known_prices
from agentlightning.levers.recommending import Recommendation, Row, corrected, recommend
from agentlightning.levers.rows import account_of_baseline, last_evaluation, notes_of, row_of, way_of, with_cheaper
from agentlightning.levers.runs import Runs
from agentlightning.levers.sections import (
    BASELINE,
    COMPARISON,
    Lever,
    baseline_of,
    combined,
    levers_of,
    run_name,
    samples_of,
)
from agentlightning.progress import Progress
from agentlightning.records import Record
from agentlightning.redaction import redact, redact_config
from agentlightning.resume import refuse_what_differs
from agentlightning.store import open_store
from agentlightning.store.base import RunRecord, Store
from agentlightning.threads import run_on_process_loop, use_daemon_threads
from agentlightning.trainer import Trainer
from agentlightning.versions import installed_versions

NEITHER = "combination"
"""The name of the row of a combination of which one part is missing."""

ProgressFor = Callable[[str], Progress]
"""Who watches the run of a lever's name."""


class LeverComparison(Record, kw_only=True):
    """What came of a comparison: what the agent is with nothing learned, a row for each lever, and what is recommended.

    ``way`` is how the models were sampled on the held-out tasks, each of which was run ``samples`` times. ``notes`` are
    what a reader should know. ``directory`` is the comparison's own.
    """

    id: str
    name: str
    budget: int
    samples: int
    alpha: float
    way: str
    baseline: float | None
    tasks: int
    baseline_account: Account
    rows: list[Row]
    recommendation: Recommendation
    notes: list[str] = []
    directory: str = ""


class Comparing:
    """Compares the algorithms ``names`` of a config, and with ``combine`` the best weights on top of the best prompt.

    Raises `ConfigError`, `PluginError` or `DataError` before anything runs where one of their configs is wrong.
    """

    def __init__(
        self,
        config: Config,
        *,
        names: Sequence[str] | None = None,
        budget: int | None = None,
        combine: bool = False,
        progress_for: ProgressFor | None = None,
    ) -> None:
        self.config = config
        self.levers = levers_of(config, names, budget)
        self.id: str | None = None
        """The comparison's own, once it has begun: what it is gone on with by."""
        self._budget = int(self.levers[0].config.budget or 0)
        self._combine = combine
        self._progress_for = progress_for or (lambda name: Progress())
        self._prices = _prices_of(self.levers) | config.compare.prices
        if combine and (len(self.levers) < 2 or not any(one.trains_weights for one in self.levers)):
            raise ConfigError("--combine: takes an algorithm that learns prompts, and one that trains weights")
        self._trainers = {BASELINE: self._trainer(BASELINE, baseline_of(config))}
        self._trainers |= {lever.name: self._trainer(lever.name, lever.config) for lever in self.levers}

    def run(self, *, resume: bool | str = False) -> LeverComparison:
        """Runs what there is to run, and compares. ``resume`` goes on with the last comparison of this name, or with
        the one of that id: runs that ended well stay as they are, and those that failed are tried again."""
        return run_on_process_loop(self.run_async(resume=resume))

    async def run_async(self, *, resume: bool | str = False) -> LeverComparison:
        """`run` as a coroutine on the caller's loop."""
        use_daemon_threads(asyncio.get_running_loop())
        store = open_store(self.config.store)
        try:
            record = self._record()
            if resume:
                earlier = await _find(store, record.name, resume)
                refuse_what_differs(earlier, record)
                record = replace(earlier, config=record.config, versions=record.versions)
            record = await store.open_run(record)
            self.id = record.id
            runs = Runs(store, record)
            await runs.restore()
            try:
                found = await self._compare(store, runs, record)
            except (asyncio.CancelledError, KeyboardInterrupt):
                await store.close_run(record.id, "cancelled", f"go on with agl compare CONFIG --resume {record.id}")
                raise
            except Exception as error:
                await store.close_run(record.id, "failed", redact(advice(error) or str(error)))
                raise
            await store.update_run(record)
            await store.close_run(record.id, "succeeded")
            return found
        finally:
            await store.close()

    def _trainer(self, name: str, config: Config) -> Trainer:
        try:
            return Trainer.from_config(config, progress=self._progress_for(name))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error

    def _record(self) -> RunRecord:
        name = run_name(self.config, COMPARISON)
        plain = msgspec.to_builtins(self.config)
        for key in ("store", "budget", "name", "seed"):
            del plain[key]
        plain["compare"] = {
            "budget": self._budget,
            "alpha": self.config.compare.alpha,
            "algorithms": {lever.name: lever.config.algorithm for lever in self.levers},
        }
        return RunRecord(
            id=f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}",
            name=name,
            algorithm=COMPARISON,
            config=redact_config({**plain, "objects": ["config"]}),
            seed=self.config.seed,
            versions=installed_versions(["agentlightning"]),
            created_at=time.time(),
        )

    async def _compare(self, store: Store, runs: Runs, record: RunRecord) -> LeverComparison:
        for name, trainer in self._trainers.items():
            await runs.fit(name, trainer)
            if name == BASELINE:
                await _refuse_without_baseline(runs)
        rows = [await row_of(store, runs, lever, self._prices) for lever in self.levers]
        if self._combine:
            rows.append(await self._combination(store, runs, rows))
        return await self._conclude(store, runs, record, corrected(rows))

    async def _combination(self, store: Store, runs: Runs, rows: Sequence[Row]) -> Row:
        """The row of the weights that gained most, trained on top of the prompt that did."""
        gains = {row.name: row.comparison.difference for row in rows if row.comparison is not None}
        best = sorted((one for one in self.levers if one.name in gains), key=lambda one: -gains[one.name])
        prompts = [one for one in best if gains[one.name] > 0 and await runs.learned_prompts(one.name)]
        weights = [one for one in best if one.trains_weights]
        run = await runs.record(prompts[0].name) if prompts else None
        if run is None or not weights:
            lacking = "no weights were trained" if prompts else "no prompt was learned that gained anything"
            return Row(name=NEITHER, algorithm="–", reason=f"there is nothing to combine: {lacking}")
        lever = combined(self.config, prompts[0], weights[0], run.id)
        await runs.fit(lever.name, self._trainer(lever.name, lever.config))
        row = await row_of(store, runs, lever, self._prices)
        row.algorithm = f"{prompts[0].config.algorithm['name']}, then {row.algorithm}"
        before = next(one.account for one in rows if one.name == prompts[0].name)
        if row.account is not None and before is not None:
            row.account = before.followed_by(row.account)
        return row

    async def _conclude(self, store: Store, runs: Runs, record: RunRecord, rows: list[Row]) -> LeverComparison:
        baseline, alpha = await runs.evaluations(BASELINE), self.config.compare.alpha
        compared = [row for row in rows if row.comparison is not None]
        lasts = {row.name: last_evaluation(baseline, await runs.evaluations(row.name)) for row in compared}
        if not any(row.is_better(alpha) for row in rows):
            level = alpha / max(1, len(compared))
            rows = [await with_cheaper(store, runs, row, self.config.promote, alpha=level) for row in rows]
        found = LeverComparison(
            id=record.id,
            name=record.name,
            budget=self._budget,
            samples=samples_of(self.config),
            alpha=alpha,
            way=await way_of(store, baseline[0]),
            baseline=baseline[0].mean,
            tasks=len(baseline[0].tasks),
            baseline_account=await account_of_baseline(store, runs, self._prices),
            rows=rows,
            recommendation=recommend(
                rows, {name: last for name, last in lasts.items() if last is not None}, alpha=alpha
            ),
            notes=[note for row in compared for note in await notes_of(store, runs, row)],
            directory=str(Path(self.config.directory) / record.id),
        )
        record.results = {name: work.run_id for name, work in runs.work.items() if work.run_id is not None}
        record.results["recommendation"] = found.recommendation.reason
        return found


async def _refuse_without_baseline(runs: Runs) -> None:
    """Raises `AlgorithmError` where the agent as it is could not be evaluated."""
    if not runs.work[BASELINE].done:
        why = runs.work[BASELINE].failure
    elif all(one.mean is None for one in await runs.evaluations(BASELINE)):
        why = f"no held-out task could be scored; agl failures {runs.work[BASELINE].run_id} says why"
    else:
        return
    raise AlgorithmError(f"the agent as it is could not be evaluated, so there is nothing to compare with: {why}")


def _prices_of(levers: Sequence[Lever]) -> dict[str, tuple[float, float]]:
    """What is known from any of them, by the names of the models."""
    return {name: price for lever in levers for name, price in known_prices(lever.config.algorithm).items()}


async def _find(store: Store, name: str, resume: bool | str) -> RunRecord:
    """The comparison of an id, or the last of a name. Raises `ConfigError`."""
    runs = [run for run in await store.runs() if run.algorithm == COMPARISON]
    found = [run for run in runs if run.id == resume or (resume is True and run.name == name)]
    if not found:
        wanted = resume if isinstance(resume, str) else f"of the name {name}"
        raise ConfigError(f"there is no comparison {wanted} to go on with in this store; `agl runs` lists all runs")
    return found[-1]
