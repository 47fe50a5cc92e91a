"""`agl otel receive`: a number that makes no sense is refused before anything listens."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from agentlightning_otel.commands import receive


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("option", "value"),
    [("--settle", value) for value in ("-1", "nan", "inf", "1e9", "soon")]
    + [("--port", value) for value in ("-1", "65536", "1.5", "http")],
)
def test_a_number_outside_of_its_range_is_refused(option: str, value: str, tmp_path: object) -> None:
    result = CliRunner().invoke(receive, [option, value, "--store", f"sqlite:///{tmp_path}/store.db"])
    assert result.exit_code == 2
    assert option in result.stderr
