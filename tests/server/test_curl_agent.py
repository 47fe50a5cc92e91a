"""An agent that is a shell script with curl learns: server, worker and script know nothing of the reward."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlightning import Trainer
from agentlightning.config import RunnerConfig
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.records import Rollout, Task
from agentlightning_server.remote import RemoteStore

pytest.importorskip("agentlightning_client")
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")

TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(6)]
SCRIPT = r"""
question=$(cat)
curl --silent --show-error --fail "$OPENAI_BASE_URL/chat/completions" \
  -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \
  -d "{\"model\": \"any\", \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}" |
  sed -n 's/.*"content": *"\([a-z]*\)".*/\1/p'
"""


class Plain(PolicyGradient):
    """What the base does by itself."""


def heads(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == "heads")


@pytest.fixture
def worker(process: Any, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "agent.sh").write_text(SCRIPT, encoding="utf-8")
    code = "from agentlightning.cli import main; main()"
    started = subprocess.Popen(
        [sys.executable, "-c", code, "work", process.url, "--command", "sh agent.sh", "--concurrency", "4"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "no_proxy": "*"},
    )
    yield
    started.kill()
    started.wait()


@pytest.mark.usefixtures("worker")
async def test_a_shell_script_with_curl_is_trained(process: Any, tmp_path: Path) -> None:
    algorithm = {
        "name": f"{__name__}:Plain",
        "backend": "bandit:BanditBackend",
        "answers": ["heads", "tails"],
        "lr": 2.0,
        "steps": 2,
        "batch_tasks": 3,
        "group_size": 8,
    }
    result = await Trainer(
        "agent.sh",
        TASKS,
        heads,
        algorithm,
        held_out=TASKS[:1],
        runner=RunnerConfig(name="clients", config={"wait_seconds": 60}),
        store=process.url,
        directory=tmp_path / "runs",
    ).fit_async()
    preferences = np.load(Path(result.results["model"]) / "preferences.npy")
    assert preferences[0] > 0 > preferences[1]
    store = RemoteStore(process.url)
    rollouts = await store.rollouts(result.run_id, purpose="train")
    spans = [await store.spans(rollout.id) for rollout in rollouts]
    await store.close()
    assert {rollout.status for rollout in rollouts} == {"succeeded"}
    calls = [[span for span in of_one if span.kind == "llm"] for of_one in spans]
    assert [len(of_one) for of_one in calls] == [1] * 48
    assert {of_one[0].generation.provenance for of_one in calls if of_one[0].generation} == {"exact"}
    assert {of_one[0].generation.policy_version for of_one in calls if of_one[0].generation} == {0, 1}
