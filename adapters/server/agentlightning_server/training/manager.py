"""The trainings of a server: queued, started, watched, stopped, and found again by the next server."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from agentlightning.child_processes import kill_group
from agentlightning.errors import AgentLightningError
from agentlightning.threads import call_in_thread
from agentlightning_server.errors import RequestError
from agentlightning_server.sessions import Sessions
from agentlightning_server.training.checking import find_problem
from agentlightning_server.training.ending import conclude
from agentlightning_server.training.folder import TRAININGS, TrainingFolder
from agentlightning_server.training.processes import ask_to_end, is_alive, lock, start_supervisor, wait_for
from agentlightning_server.training.records import RESUMABLE, Begun, Ended, Job, Reached, Start, Submission, Training
from agentlightning_server.training.watch import Watch
from agentlightning_server.wire import KEY_VARIABLE

logger = logging.getLogger(__name__)

MAX_WAITING = 32
"""Trainings that wait, by default."""
STOP_SECONDS = 60.0
"""How long trainings may take to end when the server is stopped, before they are killed."""
KILL_SECONDS = 15.0
"""How long what was killed may take to be gone, with the last of its output."""


class TrainingManager:
    """Keeps trainings in ``modules``, where what their configs name is imported from; ``most`` of them run at once, and
    ``most_waiting`` others wait.

    ``key`` is what their processes open the store of the server with. Raises `ServerError` where the folder cannot be
    written, or is another server's.
    """

    def __init__(self, modules: Path, *, most: int, most_waiting: int = MAX_WAITING, key: str | None) -> None:
        self._modules = modules
        self._root = modules / TRAININGS
        self._sessions: Sessions
        self._most, self._most_waiting = most, most_waiting
        self._key = {} if key is None else {KEY_VARIABLE: key}
        self._url = ""
        self._lock = lock(self._root)
        self._jobs: dict[str, Job] = {}
        self._watches: dict[str, Watch] = {}
        self._attending: set[asyncio.Task[None]] = set()
        self._checking = asyncio.Lock()
        self._closing = self._closed = False

    def start(self, url: str, sessions: Sessions) -> None:
        """Finds what an earlier server has left: attends to what still runs, and starts what waits. ``url`` is where
        trainings reach the store, and ``sessions`` are what they have there."""
        self._url, self._sessions = url, sessions
        for path in self._root.glob(".*/"):  # half made, or half removed, by a server that was killed
            shutil.rmtree(path, ignore_errors=True)
        for path in sorted(self._root.glob("*/job.json")):
            folder = TrainingFolder(path.parent)
            job = folder.read("job", Job)
            if job is not None:
                self._jobs[job.training.id] = job
        for job in self._jobs.values():
            if job.training.status == "running":
                self._adopt(job)
        self._start_next()

    async def close(self) -> None:
        """Has those that run end as Ctrl-C does, so that they can be gone on with; kills those that take too long."""
        self._closing = True
        for job in self._running():
            if not job.stops:
                self._end(job, "asked to stop, with its server")
        await self._all_ended(STOP_SECONDS)
        for job in self._running():
            self._end(job, "killed, with its server")
        await self._all_ended(KILL_SECONDS)
        self._closed = True
        for watch in self._watches.values():
            watch.close()
        self._lock.close()

    def all(self) -> list[Training]:
        """Every training, in the order they were submitted."""
        found = [self.training(id) for id in self._jobs]
        return sorted(found, key=lambda training: (training.submitted_at, training.id))

    def training(self, id: str) -> Training:
        """A training, as it is now. Raises `RequestError` where there is none of this id."""
        job = self._job(id)
        reached = self._folder(job).read("reached", Reached) if job.training.active else None
        if reached is not None:
            job.training.run_id, job.training.step, job.training.steps = reached.run_id, reached.step, reached.steps
        return job.training

    async def submit(self, submission: Submission) -> Training:
        """Queues a training, if its config can be run here. Raises `RequestError` with 422 where it cannot, and with
        409 where as many wait already as may."""
        id = submission.id or secrets.token_hex(6)
        async with self._checking:
            if id in self._jobs:
                return self.training(id)
            self._refuse_if_full()
            job = await self._checked(id, submission)
        self._jobs[id] = job
        self._start_next()
        return job.training

    def stop(self, id: str) -> Training:
        """Has a training end: as Ctrl-C does, or, asked again, killed. Raises `RequestError` where it has ended."""
        job = self._job(id)
        if job.training.status == "queued":
            job.training.status, job.training.ended_at = "cancelled", time.time()
            job.training.message = "stopped before it began"
            self._save(job)
        elif job.training.status == "running":
            self._end(job, "asked to stop" if not job.stops else "killed")
        else:
            raise RequestError(409, f"training {id} has ended: it {job.training.status}")
        return self.training(id)

    def resume(self, id: str) -> Training:
        """Queues a training again, to go on where it ended. Raises `RequestError` where it cannot, or as many wait
        already as may."""
        training = self.training(id)
        if training.status not in RESUMABLE:
            what = "has succeeded" if training.status == "succeeded" else f"is {training.status}"
            raise RequestError(409, f"training {id} {what}: only what has failed or was stopped goes on")
        self._refuse_if_full()
        training.status, training.queued_at = "queued", time.time()
        training.ended_at = training.exit_code = training.signal = training.message = None
        self._save(self._job(id))
        self._start_next()
        return self.training(id)

    async def delete(self, id: str) -> Training:
        """Removes a training that has ended, with its folder; returns what it was. Its run stays in the store. Raises
        `RequestError` where there is none, or it has not ended."""
        job = self._job(id)
        training = self.training(id)
        if training.active:
            raise RequestError(409, f"training {id} is {training.status}: stop it first, and wait until it has ended")
        removed = self._root / f".{id}"
        self._folder(job).path.rename(removed)
        del self._jobs[id]
        self._watches.pop(id, Watch()).close()
        await asyncio.to_thread(shutil.rmtree, removed, ignore_errors=True)
        return training

    async def log(self, id: str, after: int | None, seconds: float) -> tuple[Training, str, int]:
        """A training and its log from byte ``after`` on, its last lines where that is None. Waits up to ``seconds`` for
        something new, as long as the training goes on."""
        job = self._job(id)
        folder = self._folder(job)
        if after is None:
            return self.training(id), *folder.tail()
        deadline, status = time.monotonic() + seconds, job.training.status
        while True:
            news = self._watch(id).news()
            text, following = folder.page(after)
            left = deadline - time.monotonic()
            if text or job.training.status != status or not job.training.active or left <= 0 or self._closed:
                return self.training(id), text, following
            await asyncio.wait([news], timeout=left)

    async def _checked(self, id: str, submission: Submission) -> Job:
        draft = TrainingFolder(self._root / f".{id}")
        shutil.rmtree(draft.path, ignore_errors=True)  # of a server that was killed
        try:
            await asyncio.to_thread(draft.make, submission)
            finding = await call_in_thread(find_problem, draft, self._modules)
            if finding.problem is not None:
                raise RequestError(422, finding.problem)
            now = time.time()
            training = Training(
                id=id,
                name=finding.name,
                agent=finding.agent,
                needs_workers=finding.needs_workers,
                submitted_at=now,
                queued_at=now,
            )
            job = Job(training=training)
            draft.write("job", job)
            draft.path.rename(self._root / id)
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise
        return job

    def _refuse_if_full(self) -> None:
        waiting = sum(job.training.status == "queued" for job in self._jobs.values())
        if waiting + len(self._running()) >= self._most + self._most_waiting:
            raise RequestError(
                409,
                f"{waiting} trainings wait already, and no more may (--max-waiting): submit it when one has ended, or "
                "stop one that waits",
            )

    def _start_next(self) -> None:
        waiting = sorted(
            (job for job in self._jobs.values() if job.training.status == "queued"),
            key=lambda job: job.training.queued_at,
        )
        for job in waiting[: max(0, self._most - len(self._running()))]:
            if not self._closing:
                self._begin(job)

    def _begin(self, job: Job) -> None:
        folder, training = self._folder(job), job.training
        job.start = Start(session=secrets.token_hex(16), store=self._url, resume=training.run_id)
        folder.write("start", job.start)
        job.supervisor, ended = start_supervisor(folder, self._modules, {**os.environ, **self._key})
        job.stops = 0
        training.status, training.started_at = "running", time.time()
        self._save(job)
        self._attend(job, ended)

    def _adopt(self, job: Job) -> None:
        """Attends to a training that another server has started, whose process may be gone."""
        assert job.supervisor is not None
        self._attend(job, partial(wait_for, job.supervisor))

    def _attend(self, job: Job, ended: Callable[[], Any]) -> None:
        self._watch(job.training.id).listen(self._folder(job).grown)
        task = asyncio.create_task(self._until_ended(job, ended))
        self._attending.add(task)
        task.add_done_callback(self._attending.discard)

    async def _until_ended(self, job: Job, ended: Callable[[], Any]) -> None:
        try:
            await call_in_thread(ended)
            await self._conclude(job)
        except Exception:  # a full disk, say: what this one has come to is known here, and the others go on
            logger.exception("how training %s has ended could not be written", job.training.id)
        finally:
            self._watch(job.training.id).close()
            self._start_next()

    async def _conclude(self, job: Job) -> None:
        folder, training, start = self._folder(job), self.training(job.training.id), job.start
        assert start is not None
        await self._clear_away(folder, start)
        how = folder.read("ended", Ended)
        is_told = how is not None and how.session == start.session
        conclude(training, how if is_told else None, stops=job.stops, last_words=folder.tail()[0])
        self._save(job)

    async def _clear_away(self, folder: TrainingFolder, start: Start) -> None:
        """What a process that did not end by itself has left: another process, and the run that it holds here."""
        begun = folder.read("begun", Begun)
        if begun is None or begun.session != start.session:
            return
        if is_alive(begun.process):  # whoever watched over it was killed
            kill_group(begun.process.pid)
        try:
            await self._sessions.end(start.session, f"{socket.gethostname()}:{begun.process.pid}")
        except AgentLightningError as error:  # what it holds is free by itself, a minute later
            logger.warning("the session of a training that has ended is still open: %s", error)

    async def _all_ended(self, seconds: float) -> None:
        if self._attending:
            await asyncio.wait(self._attending, timeout=seconds)

    def _end(self, job: Job, message: str) -> None:
        job.stops += 1
        job.training.message = message
        self._save(job)
        if job.supervisor is not None:
            ask_to_end(job.supervisor)

    def _running(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.training.status == "running"]

    def _job(self, id: str) -> Job:
        if id not in self._jobs:
            raise RequestError(404, f"there is no training {id}: GET /v1/training lists them")
        return self._jobs[id]

    def _folder(self, job: Job) -> TrainingFolder:
        return TrainingFolder(self._root / job.training.id)

    def _watch(self, id: str) -> Watch:
        return self._watches.setdefault(id, Watch())

    def _save(self, job: Job) -> None:
        self._folder(job).write("job", job)
        self._watch(job.training.id).ring()
