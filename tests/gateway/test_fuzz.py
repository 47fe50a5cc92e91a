"""A short run of ``tests/fuzz/engine.py``: what is wrong in a request harms nobody else's."""

from __future__ import annotations

import pytest
from fuzz.engine import run


@pytest.mark.timeout(600)
def test_mutated_requests_harm_nobody() -> None:
    report = run(200, seed=1)
    assert report.wrong == []
    assert report.statuses["200"] > 5
    assert report.statuses["400"] > 50
    assert report.healthy > 0
