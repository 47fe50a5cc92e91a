"""What the threads of torch cost when they wait for one another: asleep (as the policy sets it) or spinning, by
themselves and beside busy processes.

``python tests/bench/waiting.py``. The products have the size of those that write a token with a model of 135 million
weights; the four ways are measured in turn.
"""

import os
import statistics
import subprocess
import sys
from multiprocessing import Process

ROUNDS = 5
SECONDS = 2.0
PROBE = """
import time, torch
inputs, weights = torch.randn(32, 576), [torch.randn(576, 1536) for _ in range(30)]
for weight in weights:
    inputs @ weight
times, began = [], time.perf_counter()
while time.perf_counter() - began < {seconds}:
    started = time.perf_counter()
    for weight in weights:
        inputs @ weight
    times.append(time.perf_counter() - started)
print(sum(times) / len(times))
"""


def measure(policy: str) -> float:
    """Milliseconds of 30 products on all cores, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    probe = PROBE.format(seconds=SECONDS)
    return 1000 * float(subprocess.check_output([sys.executable, "-c", probe], env=environment))


def spin() -> None:
    while True:
        pass


def measure_beside(policy: str) -> float:
    """The same beside as many busy processes as there are cores."""
    busy = [Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    try:
        return measure(policy)
    finally:
        for process in busy:
            process.kill()


def main() -> None:
    print("ms, median of", ROUNDS, "           spinning   asleep   ratio")
    for title, way in (("by themselves", measure), ("beside busy processes", measure_beside)):
        pairs = [(way(""), way("PASSIVE")) for _ in range(ROUNDS)]
        spinning, asleep = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(first / second for first, second in pairs)
        print(f"{title:24} {spinning:13.1f} {asleep:8.1f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
