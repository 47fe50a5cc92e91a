"""The README's example runs, and prints what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "adapters" / "otel" / "README.md"


def test_the_readme_prints_what_it_says(tmp_path):
    text = README.read_text(encoding="utf-8")
    script = tmp_path / "example.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)), encoding="utf-8")
    printed = re.search(r"\nprints\n\n```\n(.*?)```", text, re.DOTALL)[1]
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout == printed
