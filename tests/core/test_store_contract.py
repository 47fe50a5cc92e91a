"""The embedded store does what every store must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, settings
from store_contract import StoreContract
from store_machine import StoreMachine

from agentlightning.store import Store
from agentlightning.store.sqlite import SQLiteStore


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SQLiteStore(tmp_path / "store.db")


class SQLiteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()

    def open(self) -> Store:
        return SQLiteStore(Path(self.folder.name) / "store.db")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


SQLiteMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
TestSQLiteStoreBesideAModel = SQLiteMachine.TestCase
