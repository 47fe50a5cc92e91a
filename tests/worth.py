"""What a built-in reward gives, found and made as a run does."""

from __future__ import annotations

from typing import Any

from agentlightning.config import RewardConfig
from agentlightning.plugins import plugins
from agentlightning.records import Failure, Reward, Rollout, Task
from agentlightning.scoring import Scoring


async def score(
    name: str, output: Any, expected: Any = None, *, seconds: float = 60.0, **config: Any
) -> tuple[Reward, list[Failure]]:
    """Its component, and what failed."""
    scoring = Scoring([RewardConfig(name=name, config=config)], plugins())
    rollout = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)
    task = Task(id="t", input="?", expected=expected)
    (reward,), failures = await scoring.score(rollout, task, [], seconds=seconds)
    return reward, failures


async def worth(name: str, output: Any, expected: Any = None, **config: Any) -> float | None:
    """Its value, where nothing failed."""
    reward, failures = await score(name, output, expected, **config)
    assert not failures, failures[0].message
    return reward.value
