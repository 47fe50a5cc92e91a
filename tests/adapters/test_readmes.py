"""The example in an adapter's README runs, and prints what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from adapters.framework import absent

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {"autogen": "autogen_agentchat", "crewai": "crewai", "langgraph": "langgraph", "openai-agents": "agents"}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_readme_prints_what_it_says(name: str, tmp_path: Path) -> None:
    if absent((FRAMEWORKS[name],)):
        pytest.skip(f"{FRAMEWORKS[name]} is not installed")
    readme = (ROOT / "adapters" / name / "README.md").read_text(encoding="utf-8")
    *agent, script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    imports_agent = re.search(r"^(from|import) agent\b", script, re.MULTILINE) is not None
    (tmp_path / "agent.py").write_text("\n".join(agent), encoding="utf-8")
    (tmp_path / "example.py").write_text(script if imports_agent else "\n".join([*agent, script]), encoding="utf-8")
    printed = re.search(r"\nprints\n\n```\n(.*?)```", readme, re.DOTALL)
    path = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    ran = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert printed is not None
    assert (ran.stdout, ran.returncode) == (printed[1], 0), ran.stderr
