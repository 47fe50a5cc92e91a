"""The README's example runs, and prints what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS.parent / "adapters" / "openai-agents" / "README.md"


def test_the_readme_prints_what_it_says(tmp_path):
    readme = README.read_text(encoding="utf-8")
    script = tmp_path / "example.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL)), encoding="utf-8")
    printed = re.search(r"\nprints\n\n```\n(.*?)```", readme, re.DOTALL)[1]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout == printed
