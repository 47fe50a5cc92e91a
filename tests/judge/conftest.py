"""An endpoint for the judge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stub_server import StubServer


@pytest.fixture(scope="session")
def judge_server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def stub(judge_server: StubServer) -> StubServer:
    judge_server.clear()
    return judge_server
