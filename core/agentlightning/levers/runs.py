"""The runs of one comparison, by name: begun, gone on with, and what became of each kept in the comparison's record."""

from __future__ import annotations

import gc
import logging
import time

import msgspec

from agentlightning.algorithm import Evaluation
from agentlightning.errors import advice
from agentlightning.records import Prompt
from agentlightning.redaction import redact
from agentlightning.report import evaluations_of
from agentlightning.store.base import Checkpoint, RunRecord, Store
from agentlightning.trainer import Trainer

logger = logging.getLogger(__name__)


class Session(msgspec.Struct):
    """When a run was worked on; ``ended`` is None where the process ended first."""

    began: float
    ended: float | None = None


class Work(msgspec.Struct):
    """What became of one run so far. ``failure`` is why it has not ended well."""

    sessions: list[Session] = []
    run_id: str | None = None
    failure: str | None = None
    done: bool = False

    @property
    def seconds(self) -> float:
        return sum((session.ended or session.began) - session.began for session in self.sessions)


class Runs:
    """``work`` by the name of the lever. All of it is in the last checkpoint of the comparison, written before a run
    begins and when it has ended."""

    def __init__(self, store: Store, record: RunRecord) -> None:
        self.work: dict[str, Work] = {}
        self._store = store
        self._record = record
        self._version = 0

    async def restore(self) -> None:
        """Takes up what an earlier process has kept. A session that was killed ended with the last that its run
        recorded."""
        checkpoint = await self._store.last_checkpoint(self._record.id)
        if checkpoint is None:
            return
        self._version = checkpoint.step
        self.work = msgspec.convert(checkpoint.state["work"], dict[str, Work])
        for name, work in self.work.items():
            if work.run_id is None and work.sessions:
                work.run_id = await self._begun(name, work.sessions[0].began)
            run = await self.record(name)
            work.done = run is not None and run.status == "succeeded"
            for session in work.sessions:
                if session.ended is None:
                    session.ended = max(session.began, await self._last_activity(work.run_id))
        await self._keep()

    async def fit(self, name: str, trainer: Trainer) -> None:
        """Runs, or goes on with a run; one that has ended well stays as it is. What ends it badly is kept, and is not
        raised."""
        work = self.work.setdefault(name, Work())
        if work.done:
            return
        work.failure = None
        session = Session(began=time.time())
        work.sessions.append(session)
        await self._keep()
        try:
            result = await trainer.fit_async(resume=work.run_id)
            work.run_id, work.done = result.run_id, True
        except Exception as error:  # noqa: BLE001 - one that fails leaves the others
            logger.warning("%s failed: %s", name, error)
            work.failure = redact(advice(error) or str(error) or type(error).__name__)
        finally:
            session.ended = time.time()
            if work.run_id is None:
                work.run_id = await self._begun(name, session.began)
            await self._keep()
            gc.collect()  # the model of one run is gone before the next loads its own

    async def record(self, name: str) -> RunRecord | None:
        """The record of a run; None where it has not begun."""
        work = self.work.get(name)
        return await self._store.run(work.run_id) if work is not None and work.run_id is not None else None

    async def evaluations(self, name: str) -> list[Evaluation]:
        """The evaluations of a run's held-out tasks."""
        run = await self.record(name)
        if run is None:
            return []
        rollouts, tasks = await self._store.rollouts(run.id, purpose="evaluate"), await self._store.tasks(run.id)
        return evaluations_of(rollouts, tasks)

    async def learned_prompts(self, name: str) -> bool:
        """Whether a run has published prompts."""
        run = await self.record(name)
        return run is not None and any(isinstance(one, Prompt) for one in await self._store.published(run))

    async def _begun(self, name: str, since: float) -> str | None:
        """The run of that name which a session has begun."""
        wanted = f"{self._record.name.rpartition('/')[0]}/{name}"
        runs = await self._store.runs()
        return next((run.id for run in runs if run.name == wanted and run.created_at >= since), None)

    async def _last_activity(self, run_id: str | None) -> float:
        if run_id is None:
            return 0.0
        rollouts, metrics = await self._store.rollouts(run_id), await self._store.metrics(run_id)
        return max([0.0, *(one.ended_at or 0.0 for one in rollouts), *(one.at for one in metrics)])

    async def _keep(self) -> None:
        self._version += 1
        await self._store.put_checkpoint(
            Checkpoint(
                run_id=self._record.id,
                step=self._version,
                state={"work": msgspec.to_builtins(self.work)},
                created_at=time.time(),
            )
        )
