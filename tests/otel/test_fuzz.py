"""A short run of ``tests/fuzz/receiver.py``: what is wrong in a request harms nobody else's."""

from __future__ import annotations

import pytest
from fuzz.receiver import run


@pytest.mark.parametrize("seed", [1])
def test_mutated_requests_harm_nobody(seed):
    result = run(200, seed)

    assert result.wrong == []
    assert result.statuses["200"] > 50
    assert result.statuses["400"] > 20
    assert result.traces > 0
