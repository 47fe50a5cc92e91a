"""The embedded engine beside vLLM's CPU build, in one run: ``nox -s bench_vllm``; half an hour on two cores.

Both serve the calculator example's model, which its ``prepare.py`` makes, in the same type of weights, each in a
process of its own, and get the requests of `tests/bench/engine.py` in turns: 64 rollouts of two calls, so many at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
from engine import FIRST, MODEL, SAMPLES, SECOND, SYSTEM, TASK, TASKS

AT_ONCE = (8, 32, 64)
PATIENCE = 300
"""Seconds that a server may take to be ready."""
VLLM = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}


def serve(dtype: str, port: int) -> None:
    """The embedded engine, in this process, until it is ended."""
    from agentlightning_policy.config import EngineConfig
    from agentlightning_policy.engine import Engine
    from agentlightning_policy.model import ModelConfig, PolicyModel

    async def run() -> None:
        policy = PolicyModel.load(ModelConfig(path=str(MODEL), dtype=dtype, device="cpu"))
        async with Engine(policy, EngineConfig(port=port, name="m")):
            await asyncio.Event().wait()

    asyncio.run(run())


@contextmanager
def server(command: list[str], port: int) -> Iterator[str]:
    """A server's process, and the address of its API once it answers."""
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, **VLLM}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        began = time.monotonic()
        while not _answers(url):
            if process.poll() is not None or time.monotonic() - began > PATIENCE:
                sys.exit(f"{' '.join(command[:3])} … did not become ready")
            time.sleep(1)
        yield f"{url}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


async def rollout(client: httpx.AsyncClient, url: str, task: int) -> int:
    """One rollout of two calls; returns the tokens it sampled."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": TASK.format(n=task + 11)},
    ]
    sampled = 0
    for length in (FIRST, SECOND):
        body = {"model": "m", "messages": messages, "max_tokens": length, "temperature": 1.0}
        answer = await client.post(f"{url}/chat/completions", json=body)
        answer.raise_for_status()
        sampled += answer.json()["usage"]["completion_tokens"]
        text = answer.json()["choices"][0]["message"]["content"]
        result = f"The result is {task * 31} and the rest is {task}."
        messages += [{"role": "assistant", "content": text or ""}, {"role": "user", "content": result}]
    return sampled


async def tokens_per_second(url: str, at_once: int) -> float:
    """Of all rollouts together, ``at_once`` of them running."""
    limit = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:

        async def one(number: int) -> int:
            async with limit:
                return await rollout(client, url, number % TASKS)

        began = time.perf_counter()
        sampled = sum(await asyncio.gather(*(one(number) for number in range(TASKS * SAMPLES))))
        return sampled / (time.perf_counter() - began)


def compare(dtype: str, rounds: int) -> bool:
    """Prints tokens per second of both, and whether this library's engine is ahead at each number at once."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    vllm = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL), "--served-model-name", "m"]
    vllm += ["--host", "127.0.0.1", "--port", str(ports[1]), "--max-model-len", "1024", "--dtype", dtype]
    with ExitStack() as stack:
        ours = stack.enter_context(server([__file__, "--serve", dtype, "--port", str(ports[0])], ports[0]))
        theirs = stack.enter_context(server([*vllm, "--enforce-eager", "--disable-log-stats"], ports[1]))
        print(f"\n{dtype}: tokens/s of {rounds} rounds, in turns\nat once   embedded engine        vLLM   ratio")
        ahead = True
        for at_once in AT_ONCE:
            for url in (ours, theirs):  # what a first time costs
                asyncio.run(tokens_per_second(url, at_once))
            pairs = [[asyncio.run(tokens_per_second(url, at_once)) for url in (ours, theirs)] for _ in range(rounds)]
            ratio = statistics.median(mine / others for mine, others in pairs)
            ahead &= ratio > 1
            ranges = [f"{min(column):.0f}-{max(column):.0f}" for column in zip(*pairs, strict=True)]
            print(f"{at_once:7} {ranges[0]:>17} {ranges[1]:>11} {ratio:7.2f}", flush=True)
    return ahead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--serve")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.port)
    behind = [dtype for dtype in arguments.dtypes if not compare(dtype, arguments.rounds)]
    sys.exit(f"vLLM is ahead somewhere, in {', '.join(behind)}" if behind else None)


if __name__ == "__main__":
    main()
