"""Durable spans per second through a Lightning Server on this machine, beside the embedded store:
``python tests/bench/store_http.py [--spans N] [--runs N]``.

The spans are those of ``tests/bench/store.py``, handed over one by one by one thread; the clock stops when `flush` says
that all are on the disk of the server, which is a process of its own. Fails below 5,000 spans a second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile

from store import DISTINCT, make_generations, measure

LEAST = 5000
SERVER = "from agentlightning.cli import main; main()"


def main() -> None:
    """Prints every run and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    generations = make_generations(DISTINCT)
    rates: dict[str, list[float]] = {"embedded": [], "over HTTP": []}
    for run in range(1, arguments.runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", SERVER, "server", "--port", "0", "--store", f"sqlite:///{folder}/http.db"]
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "AGL_SERVER_KEY": ""}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
                assert server.stdout is not None
                url = server.stdout.readline().partition(" at ")[2].partition(";")[0]
                for name, store in (("embedded", f"sqlite:///{folder}/embedded.db"), ("over HTTP", url)):
                    rates[name].append(arguments.spans / asyncio.run(measure(store, generations, arguments.spans)))
                server.terminate()
        print(f"run {run}: " + ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items()) + " spans/s")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print("medians: " + ", ".join(f"{name} {median:,.0f}" for name, median in medians.items()) + " spans/s")
    if medians["over HTTP"] < LEAST:
        sys.exit(f"over HTTP: fewer than {LEAST:,} spans/s")


if __name__ == "__main__":
    main()
