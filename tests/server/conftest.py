"""What these tests share: a server on a store of its own, and the key that it wants."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from losing_network import Network, lasting_port
from stub_server import StubServer

from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever key this machine has, it is not for tests."""
    monkeypatch.delenv("AGL_SERVER_KEY", raising=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., LightningServer]]:
    """Starts servers on one store; all are stopped in the end."""
    started: list[LightningServer] = []

    def start(**options: Any) -> LightningServer:
        server = LightningServer(f"sqlite:///{tmp_path}/store.db", **{"port": 0, **options})
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def upstream() -> Iterator[StubServer]:
    """A model's endpoint."""
    with StubServer() as stub:
        yield stub


@pytest.fixture
def gateway(serve: Callable[..., LightningServer], upstream: StubServer) -> LightningServer:
    """A server in front of `upstream`, without a key."""
    return serve(upstreams=[upstream.base_url])


@pytest.fixture
def server(serve: Callable[..., LightningServer]) -> LightningServer:
    """A server without a key."""
    return serve()


@pytest.fixture
def open_store(server: LightningServer) -> Callable[..., RemoteStore]:
    """Opens the store of `server`."""
    return lambda **options: RemoteStore(server.url, **options)


class Process:
    """``agl server`` in a process of its own, always at the same port."""

    def __init__(self, store: str, *arguments: str, key: str = "") -> None:
        self._store = store
        self._arguments = arguments
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", "AGL_SERVER_KEY": key}
        self._port = str(lasting_port())
        self.url = ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", "from agentlightning.cli import main; main()", "server"]
        self.process = subprocess.Popen(
            [*command, "--store", self._store, "--port", self._port, *self._arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().partition(" at ")[2].partition(";")[0]

    def kill(self) -> None:
        """As the kernel does: nothing is flushed, said or closed."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill_and_start_again(self) -> None:
        self.kill()
        self.start()


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts ``agl server`` with further arguments, in a process of its own; killed in the end."""
    started: list[Process] = []

    def start(*arguments: str) -> Process:
        started.append(Process(f"sqlite:///{tmp_path}/store.db", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def process(start_process: Callable[..., Process]) -> Process:
    return start_process()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)
