"""What adapters share: hooks that never break an agent, and the versions that are hooked into."""

from __future__ import annotations

import logging

import pytest

from agentlightning import adapter
from agentlightning.adapter import supports
from agentlightning.recording import guarded


def test_a_guarded_hook_logs_its_error_and_returns_none(caplog: pytest.LogCaptureFixture) -> None:
    @guarded
    def hook(value: int) -> int:
        return 10 // value

    assert hook(5) == 2
    assert hook(0) is None
    assert "hook failed; the agent goes on" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ("1.9.9", False),
        ("1.10.0rc1", False),
        ("1.10", True),
        ("1.10.0", True),
        ("1.15.30", True),
        ("1.16.0rc1", True),
        ("1.99.0+cpu", True),
        ("2.0.0", False),
        ("2.0.0rc1", False),
    ],
)
def test_a_version_outside_the_range_is_warned_of_once(
    installed: str, expected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supports.cache_clear()
    monkeypatch.setattr(adapter, "version", lambda name: installed)
    with caplog.at_level(logging.WARNING):
        assert [supports("frame", "1.10", "2"), supports("frame", "1.10", "2")] == [expected, expected]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (0 if expected else 1)
    assert all(f"frame {installed} is outside of the supported versions" in warning for warning in warnings)


def test_what_is_not_installed_is_not_supported_and_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    supports.cache_clear()
    assert not supports("no-such-distribution", "1", "2")
    assert not caplog.records
