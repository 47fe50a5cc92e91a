"""Durable spans per second of the embedded store: ``python tests/bench/store.py [--spans N] [--runs N] [--folder F]``.

Every span is a model call with 512 + 128 token ids, 128 log-probabilities and four messages. One thread hands
them over one by one, as a recorder does; the clock stops when `flush` says that all are on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from agentlightning.records import Generation, Span, Usage, encode
from agentlightning.store import open_store

SPANS_PER_ROLLOUT = 4
DISTINCT = 1000
WORDS = ["the", "apple", "costs", "seven", "coins", "and", "Tom", "buys", "twelve", "of", "them", "so", "he", "pays"]


def make_generations(count: int) -> list[Generation]:
    """``count`` model calls that differ in their tokens and texts."""
    rng = np.random.default_rng(0)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS, words))

    return [
        Generation(
            messages=[
                {"role": role, "content": text(words)}
                for role, words in (("system", 90), ("user", 120), ("assistant", 70), ("tool", 110))
            ],
            response={"role": "assistant", "content": text(100)},
            model="policy",
            finish_reason="stop",
            usage=Usage(input_tokens=512, output_tokens=128),
            provenance="exact",
            prompt_ids=rng.integers(0, 49152, 512).astype(np.int32),
            response_ids=rng.integers(0, 49152, 128).astype(np.int32),
            logprobs=-rng.random(128).astype(np.float32),
            policy="policy",
            policy_version=1,
        )
        for _ in range(count)
    ]


async def measure(url: str, generations: list[Generation], count: int) -> float:
    """Seconds from the first span handed over until all of ``count`` are durable."""
    spans = [
        Span(
            rollout_id=f"{position // SPANS_PER_ROLLOUT * 0x9E3779B97F4A7C15 % 2**64:016x}",
            index=position % SPANS_PER_ROLLOUT,
            kind="llm",
            name="chat policy",
            agent="solver",
            ended_at=time.time(),
            attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "policy"},
            generation=generations[position % len(generations)],
        )
        for position in range(count)
    ]
    store = open_store(url)
    started = time.perf_counter()
    for span in spans:
        store.add_spans((span,))
    await store.flush()
    seconds = time.perf_counter() - started
    await store.close()
    return seconds


def main() -> None:
    """Prints every run and the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the database lies (a temporary folder)")
    arguments = parser.parse_args()
    generations = make_generations(DISTINCT)
    size = statistics.fmean(
        len(encode(Span(rollout_id="0" * 16, kind="llm", name="chat", generation=said))) for said in generations
    )
    rates = []
    for run in range(1, arguments.runs + 1):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            seconds = asyncio.run(measure(f"sqlite:///{folder}/bench.db", generations, arguments.spans))
        rates.append(arguments.spans / seconds)
        print(f"run {run}: {rates[-1]:,.0f} durable spans/s, {rates[-1] * size / 1e6:.0f} MB/s")
    median = statistics.median(rates)
    print(f"median of {len(rates)}: {median:,.0f} durable spans/s of {size:,.0f} bytes, {median * size / 1e6:.0f} MB/s")


if __name__ == "__main__":
    main()
