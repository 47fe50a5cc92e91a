"""The README's table of what each adapter captures."""

from __future__ import annotations

from pathlib import Path

from adapters.table import table

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_shows_what_the_suite_tests() -> None:
    assert table() in README.read_text(encoding="utf-8")
