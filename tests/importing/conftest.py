"""A store to import into."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from importing_files import Imports

from agentlightning.store import open_store


@pytest.fixture
async def imports(tmp_path: Path) -> AsyncIterator[Imports]:
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    yield Imports(store, tmp_path)
    await store.close()
