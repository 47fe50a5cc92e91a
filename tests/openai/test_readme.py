"""The example of the README runs."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "adapters" / "openai" / "README.md"


def test_the_example_runs(capsys) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out.startswith("chat tiny exact [")
