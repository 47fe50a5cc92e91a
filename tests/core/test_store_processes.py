"""Several processes and one store: who owns a run, and what becomes of it when its owner dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from store_records import a_rollout, a_run, a_span

from agentlightning.errors import StoreBusyError
from agentlightning.store.owner import Owner, has_ended, started_at, this_process
from agentlightning.store.sqlite import SQLiteStore

WORKER = """
import asyncio, sys
from store_records import a_rollout, a_run, a_span
from agentlightning.store.sqlite import SQLiteStore

path, run_id, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def say(*words):
    print(*words, flush=True)

async def work(store, worker, ids):
    while leased := await store.lease(worker, ids=ids, limit=2):
        for rollout in leased:
            say("leased", rollout.id, rollout.attempt)
        for rollout in leased:
            store.add_spans([a_span(rollout.id, index, attempt=rollout.attempt) for index in (0, 1)])
            store.add_spans([a_span(rollout.id, 2, attempt=rollout.attempt)])
            rollout.status, rollout.output = "succeeded", rollout.attempt
            if await store.finish(rollout):
                say("finished", rollout.id, rollout.attempt)

async def main():
    store = SQLiteStore(path)
    await store.open_run(a_run(run_id))
    running = [rollout for rollout in await store.rollouts(run_id) if rollout.status == "running"]
    assert not running, running
    say("open")
    ids = [f"{run_id}-{number}" for number in range(count)]
    await store.enqueue([a_rollout(id, run_id=run_id) for id in ids])
    await asyncio.gather(*(work(store, f"worker {number}", ids) for number in range(4)))
    await store.close_run(run_id, "succeeded")
    await store.close()
    say("closed")

asyncio.run(main())
"""
HOLDER = """
import asyncio, sys
from store_records import a_run
from agentlightning.store.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open_run(a_run())
    await store.lease("worker")
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(main())
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def elsewhere(**fields: object) -> Owner:
    """An owner on a machine that cannot be asked."""
    made = Owner(token="1", host="faraway", machine="another kernel", pid=17, started=1.0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


# Whether a process lives


def test_this_process_has_not_ended() -> None:
    assert has_ended(this_process()) is False


def test_a_later_process_of_the_same_pid_is_another() -> None:
    before = this_process()
    assert before.started is not None
    before.started -= 60
    assert has_ended(before) is True


def test_a_process_on_another_machine_cannot_be_asked() -> None:
    assert has_ended(elsewhere(pid=os.getpid())) is None


def test_a_killed_process_has_ended_though_its_parent_has_not_looked(start: Start) -> None:
    process = start("print('open', flush=True); input()")
    assert process.stdout is not None
    process.stdout.readline()
    owner = this_process()
    owner.pid = process.pid
    owner.started = started_at(process.pid)
    assert owner.started is not None
    assert has_ended(owner) is False
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(owner) is True


class ProcessTable:
    """The processes of a system that is not Linux: each pid's time of start, and its status."""

    def __init__(self) -> None:
        self.processes: dict[int, tuple[float, str]] = {os.getpid(): (1000.0, psutil.STATUS_RUNNING)}
        self.denied = False

    def process(self, pid: int) -> Any:
        if pid not in self.processes:
            raise psutil.NoSuchProcess(pid)
        if self.denied:
            raise psutil.AccessDenied(pid)
        started, status = self.processes[pid]
        return SimpleNamespace(create_time=lambda: started, status=lambda: status)


@pytest.fixture
def not_linux(monkeypatch: pytest.MonkeyPatch) -> ProcessTable:
    def no_such_file(*_: object) -> str:
        raise FileNotFoundError("/proc")

    table = ProcessTable()
    monkeypatch.setattr(psutil, "LINUX", False)
    monkeypatch.setattr(psutil, "Process", table.process)
    monkeypatch.setattr(os, "readlink", no_such_file)
    return table


def test_an_owner_is_known_to_live_or_to_have_ended_on_other_systems_too(not_linux: ProcessTable) -> None:
    owner = this_process()
    assert has_ended(owner) is False
    for gone in ({}, {owner.pid: (1060.0, psutil.STATUS_RUNNING)}, {owner.pid: (1000.0, psutil.STATUS_ZOMBIE)}):
        not_linux.processes = gone
        assert has_ended(owner) is True


def test_a_process_that_may_not_be_looked_at_is_not_taken_for_dead(not_linux: ProcessTable) -> None:
    owner = this_process()
    not_linux.denied = True
    assert has_ended(owner) is None


# Who owns a run


async def test_a_run_of_a_live_process_is_refused_naming_it(tmp_path: Path, start: Start) -> None:
    holder = start(HOLDER, tmp_path / "store.db")
    assert holder.stdout is not None
    holder.stdout.readline()
    store = SQLiteStore(tmp_path / "store.db")
    with pytest.raises(StoreBusyError, match=f"run run is open in process {holder.pid} on {socket.gethostname()}"):
        await store.open_run(a_run())
    await store.close()


async def test_a_run_of_a_killed_process_is_taken_over_at_once_with_its_rollouts(tmp_path: Path, start: Start) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    await store.enqueue([a_rollout("1"), a_rollout("2", run_id="other")])
    holder = start(HOLDER, tmp_path / "store.db")
    assert holder.stdout is not None
    holder.stdout.readline()
    assert (await store.runs())[0].status == "running"
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert (await store.runs())[0].status == "interrupted"
    assert getattr(await store.run("run"), "status", None) == "interrupted"
    await store.open_run(a_run())
    assert (await store.runs())[0].status == "running"
    [rollout] = await store.rollouts("run")
    assert (rollout.status, rollout.attempt) == ("queued", 1)
    await store.close()


async def test_a_second_store_in_the_same_process_is_refused(tmp_path: Path) -> None:
    first, second = SQLiteStore(tmp_path / "store.db"), SQLiteStore(tmp_path / "store.db")
    await first.open_run(a_run())
    with pytest.raises(StoreBusyError, match=f"process {os.getpid()}"):
        await second.open_run(a_run())
    await first.close_run("run", "failed")
    await second.open_run(a_run())
    await first.close()
    await second.close()


async def test_closing_the_store_gives_its_runs_and_leases_up(tmp_path: Path) -> None:
    first, second = SQLiteStore(tmp_path / "store.db"), SQLiteStore(tmp_path / "store.db")
    await first.open_run(a_run())
    await first.enqueue([a_rollout("1")])
    await first.lease("worker")
    await first.close()
    assert [run.status for run in await second.runs()] == ["interrupted"]
    await second.open_run(a_run())
    assert [rollout.attempt for rollout in await second.lease("worker")] == [2]
    await second.close()


async def test_an_owner_on_another_machine_holds_its_run_until_its_heartbeat_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("agentlightning.store.sqlite.this_process", elsewhere)
        far = SQLiteStore(tmp_path / "store.db")
    near = SQLiteStore(tmp_path / "store.db")
    await far.open_run(a_run())
    await far.enqueue([a_rollout("1")])
    [leased] = await far.lease("far")
    with pytest.raises(StoreBusyError, match="open in process 17 on faraway: if it is dead, try again in"):
        await near.open_run(a_run())
    assert [run.status for run in await near.runs()] == ["running"]
    await far.heartbeat("far", seconds=0)
    assert [run.status for run in await near.runs()] == ["interrupted"]
    await near.open_run(a_run())
    leased.status = "succeeded"
    assert not await far.finish(leased), "it was taken from this owner"
    with pytest.raises(StoreBusyError, match="was taken over by process"):
        await far.close_run("run", "succeeded")
    assert [rollout.attempt for rollout in await near.lease("near")] == [2]
    await far.close()
    await near.close()


# Writing at the same time, and dying


async def test_two_processes_write_their_own_runs_into_one_store(tmp_path: Path, start: Start) -> None:
    path, count = tmp_path / "store.db", 60
    store = SQLiteStore(path)
    other = start(WORKER, path, "other", count)
    assert other.stdout is not None
    other.stdout.readline()
    await store.open_run(a_run())
    for number in range(count):
        await store.enqueue([a_rollout(f"run-{number}")])
        [leased] = await store.lease("here", ids=[f"run-{number}"])
        store.add_spans([a_span(leased.id, index) for index in range(3)])
        leased.status = "succeeded"
        assert await store.finish(leased)
    output, _ = await asyncio.to_thread(other.communicate)
    assert output.endswith("closed\n")
    for run_id in ("run", "other"):
        rollouts = await store.rollouts(run_id)
        assert {rollout.status for rollout in rollouts} == {"succeeded"}
        assert [len(await store.spans(rollout.id)) for rollout in rollouts] == [3] * count
    await store.close()


async def test_nothing_acknowledged_is_lost_or_done_twice_when_the_process_is_killed(
    tmp_path: Path, start: Start
) -> None:
    path, count, kills = tmp_path / "store.db", 400, 10
    moments = random.Random(0)
    finished: dict[str, int] = {}
    for attempt in range(kills + 1):
        process = start(WORKER, path, "run", count)
        lines = moments.randint(0, 100) if attempt < kills else None
        output = _read_then_kill(process, lines)
        for word, *rest in (line.split() for line in output):
            if word == "leased":
                assert rest[0] not in finished, "a finished rollout was handed out again"
            elif word == "finished":
                assert rest[0] not in finished, "a rollout was finished twice"
                finished[rest[0]] = int(rest[1])
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        await _check(path, finished)
    assert output[-1] == "closed"
    store = SQLiteStore(path, read_only=True)
    rollouts = await store.rollouts("run")
    assert [rollout.status for rollout in rollouts] == ["succeeded"] * count
    assert [len(await store.spans(rollout.id)) for rollout in rollouts] == [3] * count
    await store.close()


def _read_then_kill(process: subprocess.Popen[str], lines: int | None) -> list[str]:
    """The complete lines that the process said; it is killed once it has said ``lines``, while it goes on."""
    assert process.stdout is not None
    said = []
    while line := process.stdout.readline():
        said.append(line)
        if len(said) == lines:
            process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == (0 if lines is None else -signal.SIGKILL)
    return [line.rstrip("\n") for line in said if line.endswith("\n")]


async def _check(path: Path, finished: dict[str, int]) -> None:
    store = SQLiteStore(path, read_only=True)
    rollouts = [rollout for rollout in await store.rollouts("run") if rollout.id in finished]
    assert len(rollouts) == len(finished)
    for rollout in rollouts:
        assert (rollout.status, rollout.attempt, rollout.output) == ("succeeded", *[finished[rollout.id]] * 2)
        assert [span.index for span in await store.spans(rollout.id)] == [0, 1, 2]
    await store.close()
