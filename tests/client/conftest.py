"""What these tests share: agents in a folder of their own, and workers: real ones (``agl work``), and one beside the
run in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentlightning.agents import load_agent
from agentlightning.plugins import plugins
from agentlightning.records import Rollout
from agentlightning.store import open_store
from agentlightning_client.worker import Worker, agent_here

AGL = str(Path(sys.executable).with_name("agl"))
SHORT_LEASES = str(Path(__file__).with_name("short_leases.py"))

AGENTS = '''
"""Agents that only a worker can import: they lie in its folder."""
import asyncio
import os
from pathlib import Path

import openai

import agentlightning as agl


def ask(name):
    """What the agent of this name is answered."""
    asked = [{"role": "user", "content": "heads or tails?"}]
    with (
        agl.span(name, kind="agent", agent=name),
        openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client,
    ):
        return client.chat.completions.create(model="any", messages=asked, max_tokens=8).choices[0].message.content


def one(question):
    return {"answer": ask("one"), "worker": os.getpid()}


met = False


async def together(number):
    """The first of a worker ends when another worker runs it, too."""
    global met
    if not met:
        met = True
        try:
            Path("begun").touch(exist_ok=False)
        except FileExistsError:
            await asyncio.to_thread(Path("meet").write_text, "here")  # a pipe: waits for its reader
        else:
            await asyncio.to_thread(Path("meet").read_text)
    return os.getpid()


async def first_waits(number):
    """The first of all says who runs it, and never ends."""
    try:
        Path("begun").touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    Path("who").write_text(str(os.getpid()))  # a pipe: waits for its reader
    await asyncio.sleep(3600)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where workers run: there is ``elsewhere.py``, with the agents."""
    (tmp_path / "elsewhere.py").write_text(AGENTS, encoding="utf-8")
    for pipe in ("who", "meet"):
        os.mkfifo(tmp_path / pipe)
    return tmp_path


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(folder: Path, url: str) -> Iterator[StartWorker]:
    """Starts a worker: ``start_worker("elsewhere:one", "--concurrency", "2")``, and returns when it looks for rollouts.
    Its errors go to ``work.txt``; with ``lease_seconds`` its leases end so soon after it has."""
    started: list[subprocess.Popen[bytes]] = []

    def start(agent: str, *options: str, lease_seconds: float | None = None) -> subprocess.Popen[bytes]:
        command = [AGL, "work", url, "--agent", agent, *options]
        if lease_seconds is not None:
            command = [sys.executable, SHORT_LEASES, url, agent, str(lease_seconds)]
        with (folder / "work.txt").open("ab") as output:
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=output)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


WorkerBeside = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
def worker_beside(url: str) -> WorkerBeside:
    """A worker in this process, with a connection of its own to the store: ``async with worker_beside(agent):``."""

    @asynccontextmanager
    async def beside(agent: Any, **options: Any) -> AsyncIterator[Worker]:
        store = open_store(url)
        worker = Worker(store, agent_here(*load_agent(agent, plugins())), **options)
        working = asyncio.create_task(worker.work())
        try:
            yield worker
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await store.close()

    return beside


@pytest.fixture
def stored(url: str) -> Callable[..., Any]:
    """The rollouts of a run, or of the last one: ``await stored(purpose="train")``."""

    async def read(run_id: str | None = None, **chosen: Any) -> Sequence[Rollout]:
        store = open_store(url)
        try:
            return await store.rollouts(run_id or (await store.runs())[-1].id, **chosen)
        finally:
            await store.close()

    return read
