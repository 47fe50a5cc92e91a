"""What serves HTTP under a Lightning Server, compared: event loops (uvloop, asyncio) and parsers (httptools, h11), by
the model calls of ``gateway.py`` through four servers in turns: ``python tests/bench/server_http.py [--rounds N]``.

Prints, of each, the CPU time that the server takes for a call, how long the median call takes, and calls a second.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile

import gateway

ASYNCIO = "import asyncio, uvloop; uvloop.new_event_loop = asyncio.new_event_loop; "
H11 = (
    "import uvicorn; of = uvicorn.Config; uvicorn.Config = lambda *all, **named: of(*all, **{**named, 'http': 'h11'}); "
)
SERVERS = {"uvloop, httptools": "", "asyncio, httptools": ASYNCIO, "uvloop, h11": H11, "asyncio, h11": ASYNCIO + H11}
CALLS = {("whole", 1): 800, ("whole", 16): 800, ("stream", 1): 240, ("stream", 16): 240}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    server = gateway.SERVER
    with contextlib.ExitStack() as stack:
        benches = {}
        for name, before in SERVERS.items():
            gateway.SERVER = before + server
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            benches[name] = stack.enter_context(gateway.Bench(folder))
        for (kind, at_once), calls in CALLS.items():
            options = ["--seconds", str(gateway.DAY), "--at-once", str(at_once), "--calls", str(calls)]
            options += ["--stream"] if kind == "stream" else []
            measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in benches}
            for _ in range(rounds):
                for name, bench in benches.items():
                    measured[name].append(_measure(bench, options, calls))
            for name, rows in measured.items():
                cpu, took, rate = (statistics.median(values) for values in zip(*rows, strict=True))
                print(
                    f"{kind}, {at_once} at once, {name}: {cpu:.2f} ms of CPU, {took:.2f} ms, {rate:,.0f}/s", flush=True
                )


def _measure(bench: gateway.Bench, options: list[str], calls: int) -> tuple[float, float, float]:
    """Milliseconds of the server's CPU time for a call, those of the median call, and calls a second."""
    before = bench.server_seconds()
    done = bench.through(*options)
    return 1e3 * (bench.server_seconds() - before) / calls, done["milliseconds"], calls / done["seconds"]


if __name__ == "__main__":
    main()
