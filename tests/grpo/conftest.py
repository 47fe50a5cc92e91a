"""A run whose rollouts are drawn, not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawn_run import DrawnRun


@pytest.fixture
def drawn_run(tmp_path: Path) -> DrawnRun:
    return DrawnRun(tmp_path / "run")
