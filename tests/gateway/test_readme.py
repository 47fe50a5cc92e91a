"""The sampler in the gateway's README runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import make_tokenizer

README = Path(__file__).parents[2] / "adapters" / "gateway" / "README.md"


def test_the_readme_s_sampler_answers(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    hub = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert hub in code
    code = code.replace(hub, str(tmp_path / "tokenizer"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, "user" in done.stdout) == (0, True), done.stderr
