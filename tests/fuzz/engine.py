"""The engine under mutated requests: ``python tests/fuzz/engine.py [--requests N] [--seed S]``.

A tiny random model is served from a process of its own. N requests to its three APIs, some of them left in the middle,
come from eight clients. Beside them healthy clients ask what they know the answer of, and somebody asks for
``/health``.

Wrong is: a status of 500 or no answer at all, an answer to a healthy client that is not the one it got alone, a
traceback in the server's log, memory that goes on growing, an answer of ``/health`` after more than a second (and what
the machine, busy otherwise, kept this script itself waiting). Exits with 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from mutate import Mutant, mutate

TOOL = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
MESSAGES: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
CALLED = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
COMMON = {"model": "policy", "temperature": 1.0, "top_p": 0.9, "seed": 7, "return_token_ids": True}
CHAT = {**COMMON, "max_tokens": 8, "logprobs": True, "stop": ["x"], "n": 2}

VALID: tuple[tuple[str, dict[str, Any]], ...] = (
    ("chat/completions", {**CHAT, "messages": MESSAGES, "user": "u", "metadata": {"a": "b"}}),
    ("chat/completions", {**CHAT, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}),
    (
        "chat/completions",
        {
            **CHAT,
            "messages": [*CALLED, {"role": "tool", "content": "2", "tool_call_id": "c"}],
            "tools": [{"type": "function", "function": TOOL}],
            "tool_choice": "auto",
            "parallel_tool_calls": False,
            "top_k": 5,
            "min_p": 0.1,
            "stop_token_ids": [3],
            "top_logprobs": 2,
        },
    ),
    (
        "responses",
        {
            **COMMON,
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "1 + 1?"}]},
                {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'},
                {"type": "function_call_output", "call_id": "c", "output": "2"},
            ],
            "tools": [{"type": "function", "strict": True, **TOOL}],
            "max_output_tokens": 8,
            "text": {"format": {"type": "text"}},
        },
    ),
    ("responses", {**COMMON, "input": "1 + 1?", "stream": True, "max_output_tokens": 8}),
    ("completions", {**COMMON, "prompt": [[5, 6, 7], [8, 9]], "max_tokens": 8, "logprobs": 1, "echo": False}),
    ("completions", {**COMMON, "prompt": ["once", "upon"], "max_tokens": 8, "n": 2, "stream": True}),
)
WORKERS, NEIGHBOURS = 8, 4
PATIENCE = 120.0
"""Seconds after which a request counts as one without an answer."""
GROWTH = 64 * 2**20
"""Bytes that the server may take more at the end than after half of the requests."""
HEALTH_SECONDS = 1.0


@dataclass
class Report:
    """What was seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    healthy: int = 0
    health: list[float] = field(default_factory=list)
    """Seconds that each answer of ``/health`` took."""
    machine: float = 0.0
    """Seconds that this script itself was kept waiting at most, by what else the machine did."""
    memory: list[int] = field(default_factory=list)
    """Bytes before the first request, after half of them, at the end."""
    wrong: list[str] = field(default_factory=list)


@dataclass
class Server:
    """The engine in a process of its own."""

    url: str
    process: psutil.Process
    log: Path

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(self.process.memory_info().rss)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Server]:
    """A server, until the block is left."""
    log = folder / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
        if not url:
            raise SystemExit(f"the server did not start:\n{log.read_text()}")
        yield Server(url, psutil.Process(process.pid), log)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def serve(folder: Path) -> None:
    """Serves a tiny model until standard input ends."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import make_tiny_model

    from agentlightning_policy.engine import Engine, EngineConfig
    from agentlightning_policy.model import ModelConfig, PolicyModel

    policy = PolicyModel.load(ModelConfig(path=str(make_tiny_model(folder / "model"))))
    config = EngineConfig(max_context=256, max_tokens=16, cache_memory=2**24)

    async def run() -> None:
        async with Engine(policy, config) as engine:
            print(engine.base_url, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


class Fuzz:
    """One run against one server."""

    def __init__(self, server: Server, requests: int, seed: int) -> None:
        self.report = Report()
        self._server = server
        self._seed = seed
        self._requests = requests
        self._numbers = iter(range(requests))
        self._over = threading.Event()

    async def run(self) -> Report:
        """Sends everything."""
        limits = httpx.Limits(max_connections=None)
        watcher = threading.Thread(target=self._watch_health, name="health")
        async with httpx.AsyncClient(timeout=PATIENCE, limits=limits) as client:
            expected = [await healthy_answer(client, self._server.url, number, "alone") for number in range(NEIGHBOURS)]
            self.report.memory.append(self._server.memory)
            watcher.start()
            neighbours = [
                asyncio.create_task(self._neighbour(client, number, answer)) for number, answer in enumerate(expected)
            ]
            try:
                await asyncio.gather(*(self._worker(client) for _ in range(WORKERS)))
            finally:
                self._over.set()
                await asyncio.gather(*neighbours)
                await asyncio.to_thread(watcher.join)
        self.report.memory.append(self._server.memory)
        self._judge()
        return self.report

    def _request(self, number: int) -> tuple[str, str, Mutant]:
        """Method, address and body; each follows from the seed and its number alone."""
        rng = random.Random(f"{self._seed}/{number}")
        path, body = rng.choice(VALID)
        method = rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "PATCH")) if rng.random() < 0.02 else "POST"
        url = f"{self._server.url}/{path}"
        if rng.random() < 0.3:
            url = url.replace("/v1/", f"/rollouts/r{rng.randrange(20)}/v1/")
        if rng.random() < 0.02:
            url += rng.choice(("/", "/x", "?a=%ff", "%00"))
        return method, url, mutate(body, rng)

    async def _worker(self, client: httpx.AsyncClient) -> None:
        for number in self._numbers:
            if number == self._requests // 2:
                self.report.memory.append(self._server.memory)
            if number % 10 == 0:
                await self._leave(client, random.Random(f"{self._seed}/left {number}"))
            method, url, mutant = await asyncio.to_thread(self._request, number)
            self.report.changes.update(change.partition(" ")[0] for change in mutant.changes)
            try:
                status = await self._send(client, method, url, mutant)
            except httpx.HTTPError as error:
                status = type(error).__name__
                self._wrong(f"no answer ({status})", method, url, mutant)
            self.report.statuses[status] += 1
            if status.startswith("5"):
                self._wrong(status, method, url, mutant)

    async def _send(self, client: httpx.AsyncClient, method: str, url: str, mutant: Mutant) -> str:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in mutant.headers.items()]
        response = await client.request(method, url, content=mutant.content, headers=headers)
        if response.status_code >= 400 and b'"message":"' not in response.content:
            self._wrong(f"{response.status_code} does not say why", method, url, mutant)
        if b'"server_error"' in response.content:
            self._wrong("an error in a stream", method, url, mutant)
        return str(response.status_code)

    async def _leave(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """Leaves a healthy request: in the middle of what is sent, or of what is streamed back."""
        self.report.left += 1
        path, body = rng.choice(VALID)
        if rng.random() < 0.5:
            url = f"{self._server.url}/{path}"
            async with client.stream("POST", url, json={**body, "stream": True}) as response:
                async for _ in response.aiter_raw():
                    return
        content = json.dumps(body).encode()
        host, _, port = self._server.url.removeprefix("http://").removesuffix("/v1").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        writer.write((head + content)[: rng.randrange(len(head + content))])
        await writer.drain()
        writer.close()

    async def _neighbour(self, client: httpx.AsyncClient, number: int, expected: Any) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            answer = await healthy_answer(client, self._server.url, number, f"n{number}-{turn}")
            self.report.healthy += 1
            if answer != expected:
                self.report.wrong.append(f"a healthy client got {answer}, not {expected}")

    def _watch_health(self) -> None:
        url = self._server.url.removesuffix("/v1") + "/health"
        with httpx.Client(timeout=PATIENCE) as client:
            while not self._over.is_set():
                began = time.monotonic()
                time.sleep(0.05)
                self.report.machine = max(self.report.machine, time.monotonic() - began - 0.05)
                began = time.monotonic()
                try:
                    healthy = client.get(url).json() == {"status": "ok"}
                except httpx.HTTPError:
                    healthy = False
                self.report.health.append(time.monotonic() - began)
                if not healthy:
                    self.report.wrong.append("/health did not answer")

    def _wrong(self, what: str, method: str, url: str, mutant: Mutant) -> None:
        self.report.wrong.append(f"{what}: {method} {url} {mutant.changes} {mutant.content[:200]!r}")

    def _judge(self) -> None:
        report = self.report
        if "Traceback" in (log := self._server.log.read_text(errors="replace")):
            report.wrong.append(f"the server logged a traceback:\n{log[log.index('Traceback') :][:3_000]}")
        if report.memory[-1] - report.memory[1] > GROWTH:
            grown = " to ".join(str(report.memory[at] >> 20) for at in (1, -1))
            report.wrong.append(f"memory grew from {grown} MiB in the second half")


async def healthy_answer(client: httpx.AsyncClient, url: str, number: int, rollout: str) -> Any:
    """What a healthy client gets: two turns of a chat, a stream, a response or a completion, always the same tokens."""
    headers = {"x-agentlightning-rollout": rollout}
    body: dict[str, Any] = {"model": "policy", "seed": number, "return_token_ids": True}
    if number == 0:
        turns, messages = [], [*MESSAGES]
        for _ in range(2):
            asked = {**body, "messages": messages, "max_tokens": 6}
            answer = (await client.post(f"{url}/chat/completions", json=asked, headers=headers)).json()
            choice = answer["choices"][0]
            turns.append([answer["prompt_token_ids"], choice["token_ids"]])
            messages += [choice["message"], MESSAGES[1]]
        return turns
    if number == 1:
        asked = {**body, "messages": MESSAGES, "max_tokens": 6, "stream": True}
        text = (await client.post(f"{url}/chat/completions", json=asked, headers=headers)).text
        events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line[6:7] == "{"]
        return [id for each in events for choice in each["choices"] for id in choice.get("token_ids", [])]
    if number == 2:
        asked = {**body, "input": "hi", "max_output_tokens": 6}
        return (await client.post(f"{url}/responses", json=asked, headers=headers)).json()["token_ids"]
    asked = {**body, "prompt": ["one", [5, 6]], "max_tokens": 6, "n": 2}
    answer = (await client.post(f"{url}/completions", json=asked, headers=headers)).json()
    return [choice["token_ids"] for choice in answer["choices"]]


def show(report: Report) -> None:
    """Prints the table."""
    health = sorted(report.health)
    rows = {
        "mutated requests": str(sum(report.statuses.values())),
        "answered with": ", ".join(f"{count} × {status}" for status, count in sorted(report.statuses.items())),
        "left in the middle": str(report.left),
        "changes": ", ".join(f"{name} {count}" for name, count in report.changes.most_common()),
        "healthy answers beside": str(report.healthy),
        "/health, median and slowest": f"{health[len(health) // 2]:.3f} s, {health[-1]:.3f} s",
        "this script was kept waiting": f"{report.machine:.3f} s at most",
        "memory: begin, half, end": ", ".join(f"{size >> 20} MiB" for size in report.memory),
        "wrong": str(len(report.wrong)),
    }
    for name, value in rows.items():
        print(f"{name:<34} {value}")
    for wrong in report.wrong[:10]:
        print(f"  {wrong}")


def run(requests: int, seed: int) -> Report:
    """Sends so many mutated requests to a server of its own."""

    async def fuzz() -> Report:
        with tempfile.TemporaryDirectory() as folder:
            async with served(Path(folder)) as server:
                return await Fuzz(server, requests, seed).run()

    return asyncio.run(fuzz())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    report = run(arguments.requests, arguments.seed)
    if max(report.health) - report.machine > HEALTH_SECONDS:
        report.wrong.append(f"/health took {max(report.health):.2f} s")
    show(report)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
