"""A framework that is imported while the agent runs is hooked into all the same, each in a process that knows none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from adapters.framework import absent

SCRIPT = Path(__file__).parent / "late.py"

LATE = {
    "langgraph": (
        ("langchain", "langchain_openai", "agentlightning_langgraph"),
        [
            "function langgraph [langgraph]",
            "  agent solver [solver]",
            "    node model [solver]",
            "      llm chat policy [solver]",
            "    node tools [solver]",
            "      tool add [solver]",
            "    node model [solver]",
            "      llm chat policy [solver]",
        ],
    ),
    "autogen": (
        ("autogen_agentchat", "autogen_ext", "tiktoken", "agentlightning_autogen"),
        [
            "function autogen [autogen]",
            "  agent solver [solver]",
            "    llm chat policy [solver]",
            "    tool add [solver]",
            "    llm chat policy [solver]",
        ],
    ),
    "autogen_core": (
        ("autogen_core", "autogen_ext", "tiktoken", "agentlightning_autogen"),
        [
            "function autogen_core [autogen_core]",
            "  agent helper [helper]",
            "    llm chat policy [helper]",
            "  agent tools [tools]",
            "    tool add [tools]",
            "    llm chat policy [helper]",
        ],
    ),
    "crewai": (
        ("crewai", "agentlightning_crewai"),
        [
            "function crewai [crewai]",
            "  crew solving [solving]",
            "    task sum [solver]",
            "      agent solver [solver]",
            "        llm chat policy [solver]",
            "        tool add [solver]",
            "        llm chat policy [solver]",
        ],
    ),
    "openai_agents": (
        ("agents", "agentlightning_openai_agents"),
        [
            "function openai_agents [openai_agents]",
            "  workflow Agent workflow [Agent workflow]",
            "    agent solver [solver]",
            "      turn turn 1 [solver]",
            "        llm chat policy [solver]",
            "        tool add [solver]",
            "      turn turn 2 [solver]",
            "        llm chat policy [solver]",
        ],
    ),
}
"""By the agent: what has to be installed, and what is drawn of a rollout."""


@pytest.mark.parametrize("name", LATE)
def test_a_framework_imported_by_the_agent_that_runs_is_hooked_into(name: str) -> None:
    packages, outline = LATE[name]
    if missing := absent(packages):
        pytest.skip(f"{', '.join(missing)} not installed")
    ran = subprocess.run([sys.executable, str(SCRIPT), name], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert [line for line in lines if "[" in line] == outline, ran.stdout
    assert "Tracing" not in ran.stderr, "OpenAI's SDK has sent traces"
    if name == "autogen_core":
        assert "autogen_agentchat" not in lines
