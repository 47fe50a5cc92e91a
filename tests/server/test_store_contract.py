"""The store over HTTP does what every store must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from losing_network import Network, lasting_port
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
        self.port = lasting_port()
        self.start()

    def start(self) -> None:
        self.server = LightningServer(f"sqlite:///{Path(self.folder.name)}/store.db", port=self.port)
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


class UnreliableMachine(RemoteMachine):
    """The same where answers are lost and the server is started again, and nobody can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        self.network = Network(self.patched)

    @rule()
    def server_is_started_again(self) -> None:
        self.start_again()

    @rule(method=st.sampled_from(["lease", "finish", "enqueue", "add_rewards", "heartbeat", "rollouts"]))
    def answer_is_lost(self, method: str) -> None:
        self.network.lose(method)

    @rule(method=st.sampled_from(["lease", "lease", "add_rewards"]))
    def answer_is_lost_with_its_server(self, method: str) -> None:
        self.network.lose(method, self.start_again)

    def start_again(self) -> None:
        self.server.stop()
        self.start()

    def teardown(self) -> None:
        self.patched.undo()
        super().teardown()


UnreliableMachine.TestCase.settings = settings(
    max_examples=8, stateful_step_count=30, phases=(Phase.explicit, Phase.generate)
)
TestRemoteStoreWhereAnswersAreLost = UnreliableMachine.TestCase
