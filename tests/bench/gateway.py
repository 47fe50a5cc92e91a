"""Model calls through a Lightning Server beside the same calls made of its upstream:
``python tests/bench/gateway.py [--rounds N] [--seconds S] [--calls N]``.

The upstream (``model_api/upstream.py``) answers 512 tokens with 128, their ids and log-probabilities, and waits for
nothing. It, the server and the load (``model_api/load.py``) are processes of their own. Of the upstream the load asks
for tokens itself; of the server it does not: that asks for them, records each call as a span, which is on the disk
before the answer is out, and takes out of the answer what was not asked for. Direct and through the server alternate,
and medians of the rounds count. Fails where at concurrency 1 the server adds more than 1 ms to the median call, where
at 16 and 64 it answers less than 0.75 as many a second as the upstream does, or where a call is not in the store.

``--calls 100000`` looks at memory instead: that many calls, and the server's resident memory after each tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from agentlightning.records import Rollout
from agentlightning.store.base import RunRecord
from agentlightning_server.remote import RemoteStore

PARTS = Path(__file__).parent / "model_api"
SERVER = "from agentlightning.cli import main; main()"
AT_ONCE = (1, 16, 64)
MOST_MILLISECONDS = 1.0
LEAST_SHARE = 0.75
MOST_GROWTH = 0.1
"""Of resident memory, from the second tenth of the calls to the last."""
DAY = 86400.0


def main() -> None:
    """Prints every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--calls", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Bench(folder) as bench:
        if arguments.calls is not None:
            over = bench.memory(arguments.calls)
        else:
            over = [line for stream in (False, True) for line in bench.compare(stream, arguments)]
        over += bench.not_recorded()
    if over:
        sys.exit("; ".join(over))


class Bench:
    """An upstream, a server in front of it, and a rollout that runs."""

    def __init__(self, folder: str) -> None:
        self._file = f"{folder}/gateway.db"
        self._calls = 0

    def __enter__(self) -> Bench:
        self._upstream = subprocess.Popen(
            [sys.executable, str(PARTS / "upstream.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._direct = _line(self._upstream).strip()
        command = [sys.executable, "-c", SERVER, "server", "--port", "0", "--store", f"sqlite:///{self._file}"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "AGL_SERVER_KEY": ""}
        self._server = subprocess.Popen(
            [*command, "--upstream", self._direct], stdout=subprocess.PIPE, text=True, env=environment
        )
        self._url = _line(self._server).partition(" at ")[2].partition(";")[0]
        asyncio.run(_rollout(self._url))
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()
        self._upstream.terminate()
        self._upstream.wait()

    def compare(self, stream: bool, arguments: argparse.Namespace) -> Iterator[str]:
        """What was over a limit, after both ways were measured in turns."""
        kind = "streams" if stream else "whole answers"
        options = ["--seconds", str(arguments.seconds), *(["--stream"] if stream else [])]
        for at_once in AT_ONCE:
            direct, through = [], []
            for _ in range(arguments.rounds):
                direct.append(_load(self._direct, *options, "--logprobs", "--at-once", str(at_once)))
                through.append(self.through(*options, "--at-once", str(at_once)))
            rates = [statistics.median(each["calls"] / each["seconds"] for each in them) for them in (direct, through)]
            times = [statistics.median(each["milliseconds"] for each in them) for them in (direct, through)]
            shares = [
                (after["calls"] / after["seconds"]) / (before["calls"] / before["seconds"])
                for before, after in zip(direct, through, strict=True)
            ]
            share, added = statistics.median(shares), times[1] - times[0]
            print(
                f"{kind}, {at_once} at once: upstream {rates[0]:,.0f}/s, {times[0]:.2f} ms; through the server "
                f"{rates[1]:,.0f}/s, {times[1]:.2f} ms; {added:+.2f} ms, {share:.2f} of the upstream's "
                f"({min(shares):.2f} to {max(shares):.2f})",
                flush=True,
            )
            if at_once == 1 and added > MOST_MILLISECONDS:
                yield f"{kind}: {added:.2f} ms more than the upstream's"
            if at_once > 1 and share < LEAST_SHARE:
                yield f"{kind}, {at_once} at once: {share:.2f} of the upstream's calls a second"

    def memory(self, calls: int) -> list[str]:
        """The server's memory after each tenth of so many calls, half of which are streams."""
        process = psutil.Process(self._server.pid)
        sizes = []
        for tenth in range(10):
            stream = ["--stream"] if tenth % 2 else []
            self.through("--at-once", "16", "--seconds", str(DAY), "--calls", str(calls // 10), *stream)
            sizes.append(process.memory_info().rss / 1024**2)
            print(f"{(tenth + 1) * calls // 10:,} calls: {sizes[-1]:.0f} MiB", flush=True)
        growth = sizes[-1] / sizes[1] - 1
        return [f"memory grew by {growth:.0%}"] if growth > MOST_GROWTH else []

    def not_recorded(self) -> list[str]:
        """Compares what was answered through the server with what is in its store."""
        with sqlite3.connect(f"file:{self._file}?mode=ro", uri=True) as database:
            ((spans,),) = database.execute("SELECT count(*) FROM spans WHERE rollout_id = 'bench'")
        print(f"{self._calls:,} calls were answered through the server, {spans:,} spans are in its store")
        return [] if spans == self._calls else ["calls are not recorded"]

    def server_seconds(self) -> float:
        """The CPU time that the server has taken so far."""
        times = psutil.Process(self._server.pid).cpu_times()
        return float(times.user + times.system)

    def through(self, *options: str) -> dict[str, Any]:
        """Calls through the server; what `load.py` measured."""
        measured = _load(f"{self._url}/rollouts/bench/v1", *options)
        self._calls += measured["calls"]
        return measured


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _load(url: str, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PARTS / "load.py"), url, *options], stdout=subprocess.PIPE, check=True, text=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


async def _rollout(url: str) -> None:
    store = RemoteStore(url)
    run = RunRecord(id="bench", name="bench", algorithm="bench")
    await store.open_run(run)
    await store.enqueue([Rollout(id="bench", run_id="bench", task_id="t", group_id="g", purpose="observe")])
    await store.lease("bench", ids=["bench"], seconds=DAY)
    # The lease is this session's: it stays while the session is not ended, and the server does not hear of it again.


if __name__ == "__main__":
    main()
