"""What a store is: the one place where runs, rollouts, spans, resources and metrics live.

Writing is in two tempos. Spans and metrics are handed over at once and made durable in batches by the
store's writer (`add_spans`, `add_metrics`; `flush` waits for what was handed over so far). Everything that
decides who does what next (runs, rollouts, resources, checkpoints) is durable when the call returns.

Every write is idempotent by id. A store is safe to use from any thread; the methods that may wait for the
disk are coroutines and do not block the event loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from agentlightning.records import AnyResource, Failure, Purpose, Record, Reward, Rollout, Span, Task
from agentlightning.store.promotions import Promotion
from agentlightning.store.tries import TryCount

RunStatus = Literal["running", "succeeded", "failed", "cancelled", "interrupted", "live"]


class RunRecord(Record, kw_only=True):
    """One training run, as the store knows it: enough to make it again.

    ``config`` is the whole config, with the digest of the tasks; ``versions`` are those of the distributions that it
    ran with, by name; ``held_out`` are the ids of the tasks that nothing is learned from. ``resources`` maps the name
    of each resource to the digest of what was published last, ``results`` are what came of the run (``model``: the
    folder of the trained weights).

    ``interrupted`` is the status of one that did not end and that nobody runs any more: its process was killed, say.
    ``live`` is that of one that nobody owns and that does not end: deployed agents add to it what they recorded
    (`Store.add_recorded`).
    """

    id: str
    name: str
    algorithm: str
    config: dict[str, Any] = {}
    seed: int = 0
    versions: dict[str, str] = {}
    held_out: list[str] = []
    resources: dict[str, str] = {}
    results: dict[str, str] = {}
    status: RunStatus = "running"
    created_at: float = 0.0
    ended_at: float | None = None
    message: str | None = None


class Recorded(Record, kw_only=True):
    """A rollout that somebody else ran, as it ended: with its task, and the spans of its attempt."""

    task: Task
    rollout: Rollout
    spans: list[Span] = []


class Checkpoint(Record, kw_only=True):
    """A point from which a run can go on: small ``state`` here, large files in the folder ``path``."""

    run_id: str
    step: int
    state: dict[str, Any] = {}
    path: str | None = None
    created_at: float = 0.0


class Metric(Record, kw_only=True):
    """One number of one step of a run."""

    run_id: str
    step: int
    name: str
    value: float
    at: float = 0.0


class CollectionSummary(Record, kw_only=True):
    """What the rollouts of one collection came to, without a look at any of them.

    ``scored`` of its ``rollouts`` have an outcome. ``outcome`` is the mean over the tasks of the mean over each task's
    scored rollouts; None where none is scored.
    """

    collection: str
    purpose: Purpose
    step: int
    variant: str
    rollouts: int
    ended: int
    scored: int
    outcome: float | None


class RunSummary(Record, kw_only=True):
    """What a run came to so far: its collections in the order they were asked for, and the last step of its metrics (0:
    none)."""

    step: int
    collections: list[CollectionSummary]


class Store(ABC):
    """The store interface, spoken by the embedded store and by every other."""

    # Runs. A run is owned by one live process at a time.

    @abstractmethod
    async def open_run(self, run: RunRecord) -> RunRecord:
        """Creates the run, or takes it over when its owner is gone; returns it as it stands.

        Its config and versions become those of ``run``. Rollouts that the vanished owner had leased are queued again.
        Raises `StoreBusyError` when another live process owns it.
        """

    @abstractmethod
    async def update_run(self, run: RunRecord) -> None:
        """Writes what the run has published and what came of it; its status stays. Raises `StoreBusyError` when it is
        another process's by now."""

    @abstractmethod
    async def close_run(self, run_id: str, status: RunStatus, message: str | None = None) -> None:
        """Marks the run as ended and gives up ownership."""

    @abstractmethod
    async def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""

    @abstractmethod
    async def run(self, run_id: str) -> RunRecord | None:
        """One run; None when there is none of that id."""

    # Tasks and rollouts.

    @abstractmethod
    async def add_tasks(self, run_id: str, tasks: Sequence[Task]) -> None:
        """Keeps the tasks of a run, by id."""

    @abstractmethod
    async def tasks(self, run_id: str, ids: Iterable[str] | None = None) -> dict[str, Task]:
        """Tasks of a run by id."""

    @abstractmethod
    async def enqueue(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Adds rollouts that are not there yet; returns all of them as they stand, in the order given.

        A rollout that is there already is returned with the status and the results it has.
        """

    @abstractmethod
    async def lease(
        self,
        worker: str,
        *,
        ids: Sequence[str] | None = None,
        run_id: str | None = None,
        limit: int = 1,
        seconds: float = 60.0,
    ) -> list[Rollout]:
        """Hands out up to ``limit`` queued rollouts (of ``ids`` and of run ``run_id``, where given) as ``running`` by
        ``worker``.

        Each lease is a new attempt: ``attempt`` grows by one. A lease ends after ``seconds`` unless
        `heartbeat` renews it; one that has ended is handed out again.
        """

    @abstractmethod
    async def heartbeat(self, worker: str, *, seconds: float = 60.0) -> None:
        """Renews every lease of ``worker``."""

    @abstractmethod
    async def finish(self, rollout: Rollout) -> bool:
        """Writes the result of a leased attempt, with every span handed over before; ends the lease.

        The rollout's ``status`` is final, or ``queued`` to have it tried again. Returns False, and writes
        nothing, when that attempt is no longer the leased one (it ended, or was finished already).
        """

    @abstractmethod
    async def wait(self, ids: Iterable[str], *, seconds: float | None = None) -> list[Rollout]:
        """Those of the rollouts that have ended (`Rollout.finished`), as soon as there is one; none when ``seconds``
        have passed, or where no id was given.

        An attempt that is to be tried again has ended nothing. What this store object writes is seen at once; what
        others write may be seen a second later.
        """

    @abstractmethod
    async def add_rewards(
        self, rollout_id: str, attempt: int, rewards: Sequence[Reward], failure: Failure | None = None
    ) -> bool:
        """Gives rewards to an attempt that has finished: those of its group, or of a user later on.

        Each takes the place of those of its name and span that are there (`Rollout.add_rewards`). ``failure`` says why
        one has no value, and is kept where the rollout has none. Returns False, and writes nothing, when that attempt
        is not the last one of the rollout, or has not finished.
        """

    @abstractmethod
    async def add_recorded(self, run: RunRecord, recorded: Sequence[Recorded]) -> None:
        """Adds rollouts that have ended elsewhere to a run that nobody owns: all at once, or none.

        The run, whose status is ``live``, is made where there is none; its ``results`` are added to those that it has.
        A rollout that is there already stays as it is, with the rewards that it was given since. Raises
        `StoreRefusedError` where the run that is there is no live one, a rollout has not ended or is of another run, or
        a span is of another rollout.
        """

    @abstractmethod
    async def rollouts(
        self,
        run_id: str,
        *,
        purpose: Purpose | None = None,
        collection: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Rollout]:
        """Rollouts of a run in the order they were added: all, or only those that are of all that is given.

        A page at a time: at most ``limit``, from the one that was added next after the rollout ``after``.
        """

    @abstractmethod
    async def summary(self, run_id: str) -> RunSummary:
        """What a run came to so far, in sums."""

    @abstractmethod
    async def tries(self, run_id: str, *, since: float | None = None, bucket: float | None = None) -> list[TryCount]:
        """How many rollouts of a run, and steps of theirs, came out alike: by kind, agent, tool or model, and failure
        (`agentlightning.store.tries`). Those of the first rollouts, which only check, are not among them.

        ``since``: those alone that ended then or later, in seconds since the epoch. With ``bucket`` they are counted
        apart by when they ended, in buckets of so many seconds. Sorted by what they have in common; each count of
        failures has the last one as its example. Raises `StoreError` for a bucket of less than a second.
        """

    @abstractmethod
    async def wait_for_ended(self, run_id: str, *, more_than: int, seconds: float) -> int:
        """How many rollouts of a run have ended, as soon as they are ``more_than`` so many, or when ``seconds`` have
        passed. As `wait`, for whoever looks at a run and knows not what will be asked for next."""

    @abstractmethod
    async def rollout(self, rollout_id: str) -> Rollout | None:
        """One rollout; None when there is none of that id."""

    @abstractmethod
    async def rollout_with_spans(self, rollout_id: str) -> tuple[Rollout, list[Span]]:
        """One rollout and the spans of its last attempt, by ``index``, as they stood at one moment.

        Raises `StoreError` when there is none of that id.
        """

    # Spans and metrics: written in batches.

    @abstractmethod
    def add_spans(self, spans: Sequence[Span]) -> None:
        """Hands spans to the writer: returns at once, from any thread. A span of a known id is replaced.

        Raises `StoreError` when the writer has failed (disk full …): what was written stays.
        """

    @abstractmethod
    async def spans(self, rollout_id: str, *, attempt: int | None = None) -> list[Span]:
        """The spans of one attempt of a rollout (the last one by default), by ``index``."""

    @abstractmethod
    def add_metrics(self, metrics: Sequence[Metric]) -> None:
        """Hands metrics to the writer; the last value of (run, step, name) stays."""

    @abstractmethod
    async def metrics(self, run_id: str) -> list[Metric]:
        """Every metric of a run by step, then name."""

    @abstractmethod
    async def flush(self) -> None:
        """Returns when everything handed over before is durable. Raises `StoreError` when it cannot be."""

    # Resources and checkpoints.

    @abstractmethod
    async def put_resource(self, run_id: str, resource: AnyResource) -> None:
        """Keeps a resource under the digest of its content; what is there under it already is replaced."""

    @abstractmethod
    async def resources(self, run_id: str) -> list[AnyResource]:
        """Every resource of a run, in the order they were first put."""

    @abstractmethod
    async def resource(self, run_id: str, digest: str) -> AnyResource | None:
        """The resource of a run with that `Resource.digest`, as a rollout's ``resources`` name it; None when there is
        none."""

    async def published(self, run: RunRecord) -> list[AnyResource]:
        """What a run has published last under each name, in the order of the names' first publication."""
        found = [await self.resource(run.id, digest) for digest in run.resources.values()]
        return [resource for resource in found if resource is not None]

    # What is in production (`agentlightning.promotion`).

    @abstractmethod
    async def promotions(self, target: str | None = None) -> list[Promotion]:
        """Every promotion of a target, or of all, in the order in which they were first written."""

    @abstractmethod
    async def put_promotions(self, target: str, promotions: Sequence[Promotion], *, revision: int) -> bool:
        """Writes promotions of a target, those that are there by id in their place: all of them, in one change.

        Returns False, and writes nothing, where the target's revision (`agentlightning.store.promotions.revision_of`)
        is another: somebody has changed it since. Raises `StoreError` for a promotion of another target.
        """

    @abstractmethod
    async def wait_for_promotions(self, target: str, *, newer_than: int, seconds: float) -> list[Promotion]:
        """What `promotions` gives, as soon as the target's revision is above ``newer_than``, or when ``seconds`` have
        passed. As `wait`, for whoever follows what is in production."""

    @abstractmethod
    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Keeps a checkpoint; its files must be durable before."""

    @abstractmethod
    async def last_checkpoint(self, run_id: str) -> Checkpoint | None:
        """The checkpoint of the highest step; None when there is none."""

    @abstractmethod
    async def close(self) -> None:
        """Flushes and closes. Safe to call twice."""
