"""The store over HTTP does what every store must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, settings
from store_contract import StoreContract
from store_machine import StoreMachine

from agentlightning.store import Store
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer


class TestRemoteStore(StoreContract):
    @pytest.fixture
    def open_again(self, server: LightningServer) -> Callable[[], Store]:
        return lambda: RemoteStore(server.url)


class RemoteMachine(StoreMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.server = LightningServer(f"sqlite:///{Path(self.folder.name)}/store.db", port=0)
        self.server.start()

    def open(self) -> Store:
        return RemoteStore(self.server.url)

    def teardown(self) -> None:
        super().teardown()
        self.server.stop()
        self.folder.cleanup()


RemoteMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
TestRemoteStoreBesideAModel = RemoteMachine.TestCase
