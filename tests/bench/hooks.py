"""What a framework's hooks cost: CPU per model call of an agent with one tool, over the same agent without them.

    python tests/bench/hooks.py [--runs 300] [FRAMEWORK …]

The agents are those of the conformance suite; their endpoint is a process of its own. Three variants take turns, run by
run: nothing recorded, the model layer alone, the model layer and the framework's adapter. The first run after each turn
does not count: methods that were just replaced make the interpreter forget what it had learned of their classes, which
happens once in a process that trains. Each figure is the median over the runs of this process's CPU time on all its
threads, and what the hooks add is the median of the differences, with its standard error; the garbage collector rests
meanwhile. A run makes two model calls and one of the tool. Frameworks that are not installed are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import logging
import math
import multiprocessing
import statistics
import sys
import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

LIMITS = {"crewai": 200}
LIMIT_MICROSECONDS = 100
CALLS_A_RUN = 2
WARM_UP, RUNS_WITHOUT_COLLECTION = 5, 20


def serve(connection: Connection) -> None:
    """The endpoint, until told to stop."""
    from adapters.script import script
    from stub_server import StubServer

    with StubServer() as stub:
        stub.reply(script)
        connection.send(stub.base_url)
        connection.recv()


async def measure(framework: Any, base_url: str, runs: int) -> dict[str, float]:
    """CPU microseconds a model call, by variant."""
    from agentlightning.plugins import plugins
    from agentlightning.recording import Recorder, recording

    adapters = {adapter.name: adapter for adapter in plugins().adapters()}
    agent = framework.solver(base_url)
    own, layer = adapters[framework.adapter], adapters["openai"]

    async def run(*installed: Any) -> float:
        for adapter in adapters.values():
            (adapter.install if adapter in installed else adapter.uninstall)()
        recorder = Recorder("rollout", 1, lambda spans: None)
        with recording(recorder) if installed else nullcontext():
            start = time.process_time()
            await own.run(agent, "What is 2 + 3?")
            spent = time.process_time() - start
        recorder.close()
        return spent / CALLS_A_RUN * 1e6

    variants = {"unrecorded": (), "model layer": (layer,), "model layer and adapter": (layer, own)}
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(runs + WARM_UP):
        if number % RUNS_WITHOUT_COLLECTION == 0:
            gc.collect()
            gc.disable()
        for name, installed in variants.items():
            await run(*installed)
            cost = await run(*installed)
            if number >= WARM_UP:
                taken[name].append(cost)
    gc.enable()
    added = [hooked - alone for hooked, alone in zip(*(taken[name] for name in list(taken)[:0:-1]), strict=True)]
    medians = {name: statistics.median(costs) for name, costs in taken.items()}
    return {**medians, "added": statistics.median(added), "error": standard_error(added)}


def standard_error(values: list[float]) -> float:
    """Of the median: from the median absolute deviation, which a few long pauses do not change."""
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return math.sqrt(math.pi / 2) * spread / math.sqrt(len(values))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frameworks", nargs="*", metavar="FRAMEWORK")
    parser.add_argument("--runs", type=int, default=300)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    base_url = here.recv()
    hooked = (path.stem for path in (TESTS / "adapters" / "frameworks").glob("*.py") if path.stem != "plain")
    names = arguments.frameworks or sorted(hooked)
    met, loop = True, asyncio.new_event_loop()
    print(f"{'µs CPU a model call':16}{'unrecorded':>12}{'model layer':>13}{'and adapter':>13}{'hooks add':>16}")
    from adapters.framework import missing

    for name in names:
        framework = importlib.import_module(f"adapters.frameworks.{name}").framework
        if missing(framework):
            print(f"{name:16}{'not installed':>12}")
            continue
        costs = loop.run_until_complete(measure(framework, base_url, arguments.runs))
        limit = LIMITS.get(name, LIMIT_MICROSECONDS)
        within = costs["added"] < limit
        met = met and within
        print(
            f"{name:16}{costs['unrecorded']:12.0f}{costs['model layer']:13.0f}"
            f"{costs['model layer and adapter']:13.0f}{costs['added']:+10.0f} ± {costs['error']:3.0f}  "
            f"{'within' if within else 'OVER'} the limit of {limit} µs"
        )
    here.send(None)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
