"""What a training is: as it is submitted, as its folder keeps it, and as it is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from agentlightning.records import Record

TrainingStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TrainingId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{12}$")]

RESUMABLE: tuple[TrainingStatus, ...] = ("failed", "cancelled")


class Submission(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/training``.

    ``config`` holds the keys of a config file without ``tasks``, ``store`` and ``directory``, which are the server's;
    ``tasks`` and ``held_out`` are rows as a task file has them. An ``id`` that is sent again is the same training.
    """

    config: dict[str, Any]
    tasks: list[dict[str, Any]]
    held_out: list[dict[str, Any]] | None = None
    id: TrainingId | None = None


class Training(Record, kw_only=True):
    """One training, as it is shown. Times are seconds since 1970.

    ``exit_code`` and ``signal`` are how its process ended last. ``needs_workers`` says that others run the agent.
    """

    id: str
    name: str
    agent: str
    needs_workers: bool = False
    status: TrainingStatus = "queued"
    submitted_at: float
    queued_at: float
    started_at: float | None = None
    ended_at: float | None = None
    run_id: str | None = None
    step: int = 0
    steps: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    message: str | None = None

    @property
    def active(self) -> bool:
        """Whether it will go on by itself."""
        return self.status in ("queued", "running")


class Trainings(msgspec.Struct):
    """The body of the answer to ``GET /v1/training``, in the order they were submitted."""

    trainings: list[Training]


class TrainingAnswer(msgspec.Struct):
    """The body of the answer to ``GET /v1/training/{id}``: a part of its log, and from which byte on there is more."""

    training: Training
    log: str
    next: int


class Process(Record, kw_only=True):
    """A process, and when it began: a later one of the same pid has another time (`agentlightning.store.owner`)."""

    pid: int
    started: float | None


class Start(Record, kw_only=True):
    """One time that a training was started: the store that it writes to, the session that it has there, and the run
    that it goes on with."""

    session: str
    store: str
    resume: str | None = None


class Begun(Record, kw_only=True):
    """Written by whoever watches over the process that trains, when that has been started."""

    session: str
    process: Process


class Ended(Record, kw_only=True):
    """The same, when that has ended: with an exit code, or by a signal."""

    session: str
    exit_code: int | None = None
    signal: str | None = None


class Reached(Record, kw_only=True):
    """Written by the process that trains: its run, and how far it is."""

    run_id: str
    step: int = 0
    steps: int | None = None


class Job(Record, kw_only=True):
    """What the server itself keeps of a training; ``supervisor`` watches over the process that trains."""

    training: Training
    start: Start | None = None
    supervisor: Process | None = None
    stops: int = 0
