"""The credit in the README is a whole plugin of a stranger's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from credit.made import advantages, group, member, states

README = Path(__file__).parents[2] / "algorithms" / "credit" / "README.md"


def test_the_readme_s_credit_works_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 20
    (tmp_path / "last_call.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        one = group(member("a", states(0, 1, 2), 1.0), member("b", states(0), 0.0), member("c", [], 0.5))
        assert advantages({"name": "last_call:LastCall", "others": 0.5}, one) == [[0.25, 0.25, 0.5], [-0.5], []]
    finally:
        sys.modules.pop("last_call", None)
