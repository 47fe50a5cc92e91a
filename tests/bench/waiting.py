"""What the threads of torch cost when they wait for one another, by themselves and beside busy processes: spinning for
milliseconds (OpenMP's default), for a moment (as `agentlightning_policy` sets it), or asleep at once; and with a second
thread of the process that has computed, too.

``python tests/bench/waiting.py``. The products have the size of those that write a token with a model of 135 million
weights; the ways are measured in turn.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Process

ROUNDS = 5
SECONDS = 2.0
PROBE = """
import sys, threading, time, torch
inputs, weights = torch.randn(8, 576), [torch.randn(576, 576) for _ in range(200)]

def products():
    for weight in weights:
        inputs @ weight

def measure():
    products()
    times, began = [], time.perf_counter()
    while time.perf_counter() - began < {seconds}:
        started = time.perf_counter()
        products()
        times.append(time.perf_counter() - started)
    print(sum(times) / len(times))

if {second}:
    products()
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""
WAYS = {
    "default": {},
    "a moment": {"GOMP_SPINCOUNT": "10000"},
    "asleep": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def measure(way: dict[str, str], *, second: bool = False) -> float:
    """Milliseconds of 200 products on all cores, in a process of its own; with a ``second`` thread that has computed,
    or not."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    probe = PROBE.format(seconds=SECONDS, second=second)
    return 1000 * float(subprocess.check_output([sys.executable, "-c", probe], env={**environment, **way}))


def spin() -> None:
    while True:
        pass


@contextmanager
def busy_processes() -> Iterator[None]:
    """As many as there are cores."""
    busy = [Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def table(title: str, *, second: bool = False) -> None:
    rounds = [[measure(way, second=second) for way in WAYS.values()] for _ in range(ROUNDS)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    print(f"{title:32}" + "".join(f"{milliseconds:10.1f}" for milliseconds in medians), flush=True)


def main() -> None:
    print(f"{f'ms, median of {ROUNDS}':32}" + "".join(f"{way:>10}" for way in WAYS))
    table("by themselves")
    table("a second thread has computed", second=True)
    with busy_processes():
        table("beside busy processes")


if __name__ == "__main__":
    main()
