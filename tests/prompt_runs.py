"""What the tests of searches over prompts read of a run."""

from __future__ import annotations

import json
from pathlib import Path

from agentlightning.records import Prompt, Rollout
from agentlightning.store import open_store


def candidates_of(folder: Path, run_id: str) -> list[dict[str, str]]:
    """The candidates that GEPA accepted, in their order."""
    found: list[dict[str, str]] = json.loads((folder / run_id / "gepa" / "candidates.json").read_text())
    return found


async def metrics_of(folder: Path, run_id: str) -> dict[str, float]:
    """The last value of each metric."""
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        return {metric.name: metric.value for metric in await store.metrics(run_id)}
    finally:
        await store.close()


async def rollouts_of(folder: Path, run_id: str) -> list[Rollout]:
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        return await store.rollouts(run_id)
    finally:
        await store.close()


async def published_prompts(folder: Path, run_id: str) -> dict[str, Prompt]:
    """What a run published last, by name."""
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        run = await store.run(run_id)
        assert run is not None
        return {prompt.name: prompt for prompt in await store.published(run) if isinstance(prompt, Prompt)}
    finally:
        await store.close()
