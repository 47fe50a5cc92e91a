"""A framework that is first imported while the agent runs is hooked into all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from adapters.framework import Framework
from adapters.script import script
from stub_server import StubServer

SCRIPT = Path(__file__).parent / "late_import.py"
SECONDS = 100


def test_its_calls_reach_the_policy_and_its_agents_and_tools_are_seen(framework: Framework) -> None:
    """Two rollouts import it at once. It sends no traces anywhere, as it would where it is not hooked into."""
    name = type(framework).__module__.rpartition(".")[2]
    with StubServer() as own, StubServer() as served:
        own.reply(script)
        served.reply(script)
        ran = subprocess.run(
            [sys.executable, str(SCRIPT), name, own.base_url, served.base_url],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, "OPENAI_API_KEY": "sk-own"},
        )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (told["before"], told["sent"], len(own.requests)) == ([], 0, 0)
    for rollout in told["rollouts"]:
        assert rollout["answered"] == ["solver", "solver"]
        tools = [line.split()[1] for line in rollout["outline"] if line.split()[0] == "tool"]
        assert tools == ([] if "a_tool_with_its_arguments_and_result" in framework.gaps else ["add"])
