"""What recording a deployed agent costs it: an attached process against one that is not, in turns.

``python tests/bench/attach.py [--seconds 30] [--latency 0.25]``: an agent makes two calls of a model, again and again.
Each answer, of 128 tokens, comes after 250 ms, sooner than most providers send as many. Twice: with a Lightning Server
that is there, and with one that is away for all that time. Fails where the agent is slowed by 1 % or more, or a rollout
or span is missing once the server is back.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import httpx  # noqa: E402
import openai  # noqa: E402
from losing_network import lasting_port  # noqa: E402

import agentlightning as agl  # noqa: E402
from agentlightning.store import open_store  # noqa: E402

CALLS = 2
WARM_UP = 10
"""Runs of the agent in each process before any counts."""
MOST = 0.01
SPANS = 1 + CALLS
"""Of a rollout: its agent's, and one a call."""
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "any",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 128}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 512, "completion_tokens": 128, "total_tokens": 640},
}
MESSAGES = [{"role": "user", "content": "word " * 512}]


@agl.live("support")
async def agent(client: openai.AsyncOpenAI) -> str | None:
    for _ in range(CALLS):
        answer = await client.chat.completions.create(model="any", messages=MESSAGES)  # type: ignore[arg-type]
    return answer.choices[0].message.content


async def work(latency: float) -> None:
    """A run for each line of the standard input; its seconds to the standard output."""

    async def respond(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(latency)
        return httpx.Response(200, json=ANSWER)

    http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    async with openai.AsyncOpenAI(
        base_url="http://model/v1", api_key="sk-of-the-benchmark", http_client=http
    ) as client:
        while await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            await agent(client)
            print(time.perf_counter() - began, flush=True)


class Worker:
    """A process that runs the agent when it is told to."""

    def __init__(self, latency: float, *attached: str) -> None:
        command = [sys.executable, __file__, "--latency", str(latency), "--work", *attached]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.runs = 0

    def run(self) -> float:
        """The seconds of one run."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.runs += 1
        return float(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()


def measure(url: str, buffer: Path, asked: argparse.Namespace) -> tuple[str, float, int]:
    """What was measured, in words; by what share the attached agent is slower: the median over pairs of runs, one after
    the other; and how many rollouts were recorded."""
    attached, alone = Worker(asked.latency, url, str(buffer)), Worker(asked.latency)
    for _ in range(WARM_UP):  # what is done once in a process is not what is measured
        attached.run()
        alone.run()
    pairs = []
    end = time.perf_counter() + asked.seconds
    while time.perf_counter() < end:
        pairs.append((attached.run(), alone.run()))
    attached.end()
    alone.end()
    typical = statistics.median(without for _, without in pairs)
    low, middle, high = statistics.quantiles((with_it - without) / typical for with_it, without in pairs)
    words = (
        f"{len(pairs)} pairs of runs of {typical * 1e3:.1f} ms, attached {middle * typical * 1e3:+.2f} ms, "
        f"{middle:+.2%} ({low:+.2%} to {high:+.2%})"
    )
    return words, middle, attached.runs


@contextmanager
def server(store: str, port: int) -> Iterator[None]:
    command = [sys.executable, "-c", "from agentlightning.cli import main; main()", "server"]
    process = subprocess.Popen([*command, "--store", store, "--port", str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def counted(store: str) -> tuple[int, int]:
    """Rollouts and spans in a store."""
    opened = open_store(store)
    try:
        rollouts = await opened.rollouts("live")
        return len(rollouts), sum([len(await opened.spans(rollout.id)) for rollout in rollouts])
    finally:
        await opened.close()


def compare(name: str, asked: argparse.Namespace, *, away: bool) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        store, port = f"sqlite:///{folder}/store.db", lasting_port()
        url, buffer = f"http://127.0.0.1:{port}", Path(folder, "buffer")
        if away:
            words, slower, recorded = measure(url, buffer, asked)
        with server(store, port):
            if not away:
                words, slower, recorded = measure(url, buffer, asked)
            agl.attach(url, buffer=buffer)  # whoever comes next hands over what is left
            agl.detach(timeout=60)
        rollouts, spans = asyncio.run(counted(store))
    print(
        f"server {name}: {words}, limit {MOST:.0%}; {rollouts} of {recorded} rollouts and {spans} of "
        f"{recorded * SPANS} spans are in its store"
    )
    return slower < MOST and (rollouts, spans) == (recorded, recorded * SPANS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0, help="of each of the two measurements")
    parser.add_argument("--latency", type=float, default=0.25, help="seconds until the model answers")
    parser.add_argument("--work", nargs="*", metavar="URL BUFFER", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        if asked.work:
            agl.attach(asked.work[0], buffer=asked.work[1])
        asyncio.run(work(asked.latency))
        agl.detach()
        return
    good = [compare("there", asked, away=False), compare("away", asked, away=True)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
