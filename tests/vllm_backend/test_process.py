"""Servers that are started here, and end with this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from agentlightning.errors import PolicyError
from agentlightning_gateway.endpoint import Endpoint
from agentlightning_vllm.config import StartConfig
from agentlightning_vllm.control import ReplicaControl
from agentlightning_vllm.process import VllmProcess, check_installed, processes
from agentlightning_vllm.recovery import answers
from agentlightning_vllm.replicas import Replica

PARENT = """\
import asyncio, sys
from pathlib import Path
from agentlightning_vllm.process import VllmProcess

async def main():
    python, pids, log = sys.argv[1:]
    await VllmProcess(python, [], {"PIDS": pids}, Path(log)).start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


def replica_of(process: VllmProcess) -> Replica:
    return Replica(process.url, Endpoint(process.url, logprobs="raw"), ReplicaControl(process.url), process)


def test_where_there_is_no_vllm_it_says_what_to_install(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    with pytest.raises(PolicyError, match=r"-m pip install vllm`, or name the Python of an environment that has it"):
        check_installed(str(python))
    with pytest.raises(PolicyError, match=r"algorithm\.vllm\.start\.python: /nowhere cannot be run"):
        check_installed("/nowhere")


async def test_a_server_that_does_not_come_up_is_quoted(vllm_python: str, tmp_path: Path) -> None:
    start = StartConfig(python=vllm_python, args=["--fail"])
    (process,) = processes(start, model="m", name="p", max_model_len=64, lora_rank=None, folder=tmp_path)
    await process.start()
    with pytest.raises(PolicyError, match=r"replica0\.log ends with:\n(.|\n)*no such thing as a hat"):
        await answers(replica_of(process), 60)
    assert not process.alive


async def test_a_server_is_stopped_with_what_it_has_started(vllm_python: str, tmp_path: Path) -> None:
    process = VllmProcess(vllm_python, [], {"PIDS": str(tmp_path / "pids")}, tmp_path / "log")
    await process.start()
    await answers(replica_of(process), 60)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    await process.stop()
    await process.stop()
    assert gone(pids)


async def test_a_server_whose_main_process_is_killed_leaves_nothing(vllm_python: str, tmp_path: Path) -> None:
    process = VllmProcess(vllm_python, [], {"PIDS": str(tmp_path / "pids")}, tmp_path / "log")
    await process.start()
    await answers(replica_of(process), 60)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    os.kill(pids[0], signal.SIGKILL)
    await process.wait()
    assert gone(pids)
    assert "the server ended: SIGKILL" in process.tail()
    await process.start()  # again, on the same port
    await answers(replica_of(process), 60)
    await process.stop()


def test_servers_end_with_a_process_that_is_killed(vllm_python: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT, vllm_python, str(pids), str(tmp_path / "log")]
    with subprocess.Popen(command) as parent:
        while not pids.exists() or len(pids.read_text().split()) < 2:
            assert parent.poll() is None
            time.sleep(0.05)
        started = [int(pid) for pid in pids.read_text().split()]
        parent.kill()
    assert gone(started)


def gone(pids: list[int]) -> bool:
    """Whether processes end, soon. One that nobody has waited for yet has ended, too."""
    until = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
