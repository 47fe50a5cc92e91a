"""The README's example runs, and prints what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_prints_what_it_says(tmp_path):
    readme = (ROOT / "adapters" / "autogen" / "README.md").read_text(encoding="utf-8")
    agent, script = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "agent.py").write_text(agent, encoding="utf-8")
    (tmp_path / "example.py").write_text(script, encoding="utf-8")
    printed = re.search(r"\nprints\n\n```\n(.*?)```", readme, re.DOTALL)[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "example.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == printed
