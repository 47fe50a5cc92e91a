"""Deployed agents in processes of their own, with a server that comes and goes: nothing written is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import live_agent
import pytest
from losing_network import lasting_port

from agentlightning.records import Rollout, new_id
from agentlightning.store import open_store

AGENT = str(Path(live_agent.__file__))
SERVER = [sys.executable, "-c", "from agentlightning.cli import main; main()", "server"]


class Server:
    """``agl server`` in a process of its own, always at the same port."""

    def __init__(self, folder: Path) -> None:
        self.store = f"sqlite:///{folder}/store.db"
        self.port = lasting_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*SERVER, "--store", self.store, "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if name != "AGL_SERVER_KEY"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**environment, "PYTHONUNBUFFERED": "1"}
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def rollouts(self) -> list[Rollout]:
        """What is in its store. Each has exactly the spans that it was recorded with."""

        async def read() -> list[Rollout]:
            store = open_store(self.store)
            try:
                found = await store.rollouts("live")
                for rollout in found:
                    kinds = [span.kind for span in await store.spans(rollout.id) if span.kind != "reward"]
                    assert kinds == (["annotation"] if rollout.status == "failed" else ["agent", "annotation"])
                return found
            finally:
                await store.close()

        return asyncio.run(read())


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("AGL_SERVER_KEY", raising=False)
    made = Server(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def deployed(server: Server, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(count: int, way: str = "once") -> subprocess.Popen[str]:
        command = [sys.executable, AGENT, server.url, str(tmp_path / "buffer"), str(count), way]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ids(process: subprocess.Popen[str]) -> set[str]:
    output, _ = process.communicate(timeout=120)
    return set(output.split())


def test_what_a_killed_agent_wrote_is_handed_over_by_the_next_when_the_server_is_there(
    server: Server, deployed: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    killed = deployed(20, "kill")
    written = ids(killed)
    assert (killed.returncode, len(written)) == (-9, 20)
    server.start()
    later = ids(deployed(1))
    found = server.rollouts()
    assert len(found) == 21
    assert {rollout.id for rollout in found} == written | later
    assert list((tmp_path / "buffer").glob("*.live")) == []


def test_what_a_killed_agent_was_at_is_a_rollout_that_the_infrastructure_broke(
    server: Server, deployed: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    server.start()
    hanging = deployed(0, "hang")
    assert hanging.stdout is not None
    cut_off = hanging.stdout.readline().strip()
    live_agent.wait_for_disk(tmp_path / "buffer", 1)
    hanging.kill()
    hanging.wait()
    ids(deployed(1))
    (rollout,) = (rollout for rollout in server.rollouts() if rollout.id == cut_off)
    assert rollout.failure is not None
    assert (rollout.status, rollout.failure.type, rollout.failure.fault) == (
        "failed",
        "process_ended",
        "infrastructure",
    )


def test_a_server_that_is_killed_again_and_again_has_each_rollout_once(
    server: Server, deployed: Callable[..., subprocess.Popen[str]]
) -> None:
    server.start()
    expected: set[str] = set()
    for _ in range(2):
        process = deployed(200)
        assert process.stdout is not None
        first = os.read(process.stdout.fileno(), len(new_id()) + 1).decode().strip()
        server.kill()
        server.start()
        expected |= {first} | ids(process)
    expected |= ids(deployed(1))
    found = [rollout.id for rollout in server.rollouts()]
    assert len(found) == len(set(found)) == 401
    assert set(found) == expected


def test_a_forked_process_records_on_its_own_as_do_several_with_one_buffer(
    server: Server, deployed: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    server.start()
    both = [deployed(10, "fork"), deployed(10, "fork")]
    written = set().union(*map(ids, both))
    found = server.rollouts()
    assert len(found) == len(written) == 42
    assert {rollout.id for rollout in found} == written
    assert sorted(rollout.output for rollout in found) == sorted([-1, *range(20)] * 2)
    assert list((tmp_path / "buffer").glob("*.live")) == []


def test_feedback_reaches_a_rollout_by_the_id_that_the_application_had(
    server: Server, deployed: Callable[..., subprocess.Popen[str]]
) -> None:
    server.start()
    (id,) = ids(deployed(1))
    answer = httpx.post(f"{server.url}/v1/feedback", json={"rollout_id": id, "thumbs": "up"})
    assert answer.status_code == 200
    assert [rollout.outcome for rollout in server.rollouts()] == [1.0]
