"""Where the time of an update and of a sampling step goes, by torch's profiler: ``nox -s profile``.

One update of 4 groups of 8 rollouts (prompt 200 tokens, answers of 40), and steps of the sampler with 8 and 64 rows,
with the calculator example's model, which its ``prepare.py`` makes. Shares are of the time on the clock; what is in no
operation of torch's is Python, and waiting.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from update import Ours, make_groups

from agentlightning.sampler import SamplingParams
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.sampler.scheduler import Scheduler, SequenceState

STEPS = 16

KINDS = {
    "matrix products": ("_linear_pointwise", "aten::mm", "aten::addmm", "aten::linear"),
    "attention": ("scaled_dot_product", "aten::bmm", "aten::baddbmm", "aten::softmax", "aten::_softmax"),
    "optimizer": ("adamw", "vector_norm"),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_", "aten::index", "aten::clone", "aten::stack"),
}
"""Beginnings or parts of operations' names, the first kind that fits; all others are elementwise passes."""


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "elementwise")


def shares(what: str, work: Callable[[], object]) -> None:
    """Profiles ``work`` and prints what share of its time each kind of operation took."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        if "::" in event.key:
            spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent["Python and waiting"] = max(0.0, seconds - spent.total())
    parts = ", ".join(f"{kind} {100 * share / seconds:.0f} %" for kind, share in spent.most_common())
    print(f"{what}: {seconds:.1f} s: {parts}", flush=True)


def sampling(policy: PolicyModel, rows: int) -> None:
    """Steps in which ``rows`` sequences get a token each, without the gateway and its threads."""
    scheduler = Scheduler(policy, max_batch=rows, cache_memory=2**30, pack_weights=True)
    common = torch.arange(180).numpy()
    for row in range(rows):
        prompt = np.concatenate([common, np.arange(40) + 100 * row]).astype(np.int32)
        scheduler.submit(SequenceState(prompt, SamplingParams(max_tokens=2 * STEPS, seed=row), lambda: None))

    @torch.inference_mode()
    def steps() -> None:
        for _ in range(STEPS):
            scheduler._try_step()

    steps()  # with the prompts
    shares(f"sampling, {STEPS} steps of {rows} rows", steps)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    ours, groups = Ours(), make_groups(4)
    ours.update(make_groups(1))
    shares("update, 4 groups of 8", lambda: ours.update(groups))
    for rows in (8, 64):
        sampling(ours.policy, rows)


if __name__ == "__main__":
    main()
