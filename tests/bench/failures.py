"""How fast failures are counted in a store, what the server's monitor costs a span, and how soon a change of a share is
noticed: ``python tests/bench/failures.py [--rollouts N] [--runs N]``.

Fails where counting takes more than 20 µs a try, or the monitor more than twice what encoding a span does.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from store_records import a_rollout, a_span, a_step

from agentlightning.records import Rollout, Span, Usage, encode
from agentlightning.share_changes import FALSE_ALARMS, TRIES, ShareDetector
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server.monitor.monitor import Monitor

STEPS = 20
SLOWEST_TRY = 20e-6
MOST_OF_ENCODING = 2.0
SHARES = ((0.02, 0.1), (0.1, 0.02), (0.3, 0.5))
BASELINES = (500, 2000, 10_000)
SEEDS = 40


async def fill(store: SQLiteStore, rollouts: int) -> None:
    await store.enqueue([a_rollout(f"{number:016x}") for number in range(rollouts)])
    for number, leased in enumerate(await store.lease("w", limit=rollouts, seconds=1e9)):
        store.add_spans([_step(leased, number, index) for index in range(STEPS)])
        leased.status, leased.ended_at = "succeeded", 1000.0 + number
        await store.finish(leased)


def _step(rollout: Rollout, number: int, index: int) -> Span:
    type = "tool_error" if (number + index) % 17 == 0 else None
    return a_step(rollout.id, index, "tool", f"tool {index % 3}", 1000.0 + number, type)


async def counting(rollouts: int) -> float:
    """Seconds a try."""
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(Path(folder) / "store.db")
        await fill(store, rollouts)
        begun = time.perf_counter()
        counts = await store.tries("run")
        took = time.perf_counter() - begun
        await store.close()
    return took / sum(count.count for count in counts)


def beside_encoding(spans: Sequence[Span]) -> float:
    """What the monitor takes for spans, as a part of what encoding them does."""
    monitor = Monitor()
    monitor.spans_written(spans)
    begun = time.perf_counter()
    monitor.spans_written(spans)
    watched = time.perf_counter()
    for span in spans:
        encode(span)
    return (watched - begun) / (time.perf_counter() - watched)


def delays(before: float, since: float, baseline: int) -> list[int]:
    """How many tries after the change each of `SEEDS` streams has noticed it."""
    found = []
    for seed in range(SEEDS):
        rng, detector = random.Random(seed), ShareDetector()
        for number in range(baseline + 5000):
            change = detector.add(rng.random() < (before if number < baseline else since))
            if change is not None:
                found.append(number + 1 - baseline)
                break
    return found


def main() -> None:
    """Prints every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollouts", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    spans = [a_span(f"r{index // STEPS}", index % STEPS, tokens=512) for index in range(2000)]
    for span in spans:
        span.ended_at, span.agent = 1.0, "solver"
        if span.generation is not None:
            span.generation.model, span.generation.usage = "m", Usage(input_tokens=512, output_tokens=128)
    counted, beside = [], []
    for run in range(1, arguments.runs + 1):
        counted.append(asyncio.run(counting(arguments.rollouts)))
        beside.append(beside_encoding(spans))
        tries = arguments.rollouts * (STEPS + 1)
        print(
            f"run {run}: {tries:,} tries counted in {counted[-1] * tries:.2f} s ({counted[-1] * 1e6:.1f} µs each); "
            f"the monitor takes {beside[-1]:.0%} of what encoding a span of 512 + 128 tokens does"
        )
    print(
        f"alarms where nothing changes: at most {FALSE_ALARMS:.0%} within {TRIES:,} tries; noticed after so many tries:"
    )
    for before, since in SHARES:
        for baseline in BASELINES:
            found = sorted(delays(before, since, baseline))
            print(
                f"  {before:.0%} → {since:.0%} after {baseline:,}: median {statistics.median(found):.0f}, "
                f"9 of 10 within {found[int(0.9 * len(found))]}, {len(found)} of {SEEDS} noticed within 5,000"
            )
    if statistics.median(counted) > SLOWEST_TRY or statistics.median(beside) > MOST_OF_ENCODING:
        sys.exit("slower than it may be")


if __name__ == "__main__":
    main()
