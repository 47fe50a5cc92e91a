"""What a runner is: it runs rollouts, wherever that is; what came of them is in the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.attempts import renewing_leases, worker_name
from agentlightning.config import RunnerConfig, Section
from agentlightning.loop_watch import watching_loop
from agentlightning.records import AnyResource, Rollout, Task
from agentlightning.scoring import Scoring
from agentlightning.store.base import RunRecord, Store


class NoOptions(Section):
    """The options of a runner that has none."""


@dataclass(frozen=True)
class RunnerSetup:
    """What a run gives its runner: what is run, how it is scored, and where that is written.

    ``adapter`` is None, and ``agent`` what the config says of it, where the runner does not run it in this process.
    ``store_url`` is how others reach the store, where that is known. ``notify`` calls a life-cycle hook of the plugins
    (`agentlightning.plugins.Plugins.notify`); ``message`` takes what a person should read.
    """

    run: RunRecord
    agent: Any
    adapter: Adapter | None
    scoring: Scoring
    store: Store
    store_url: str | None
    notify: Callable[..., None]
    message: Callable[[str], None]
    config: RunnerConfig


class Runner(ABC):
    """Base of every runner. ``Options`` are the keys of ``runner.config``, typed; ``options`` holds them."""

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    runs_agent_here: ClassVar[bool] = True
    """Whether the agent runs in this process, which then loads it."""
    needs_workers: ClassVar[bool] = False
    """Whether others run the rollouts, who find them in the store."""

    def __init__(self, setup: RunnerSetup, options: Any) -> None:
        self.setup = setup
        self.options = options
        self.worker = worker_name()
        """Whoever leases rollouts in this process."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What has to be there while rollouts may run is there inside the block, and gone after it: the leases of this
        process and its runs are kept alive, its event loop is watched, and the processes of its rewards end at last."""
        async with renewing_leases(self.setup.store, self.worker):
            try:
                with watching_loop():
                    yield
            finally:
                self.setup.scoring.close()

    def is_done(self, rollout: Rollout) -> bool:
        """Whether nothing is left to do for a rollout of a collection that was asked for before; else it is given to
        `run` again."""
        return rollout.finished

    @abstractmethod
    def run(
        self, rollouts: Sequence[Rollout], tasks: Mapping[str, Task], resources: Sequence[AnyResource]
    ) -> AsyncGenerator[str, None]:
        """Runs queued rollouts; yields the id of each when it has ended, in the order in which they end.

        Before an id is yielded, the rollout's result and the spans of its last attempt are in the store, and they are
        read from there. A failure of the infrastructure is tried again ``setup.config.retries`` times. Closing the
        generator cancels what is running; that and what has not begun is queued still.
        """
