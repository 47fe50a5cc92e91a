"""An endpoint for the model that reflects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stub_server import StubServer


@pytest.fixture(scope="session")
def reflection_server() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def stub(reflection_server: StubServer) -> StubServer:
    reflection_server.clear()
    return reflection_server
