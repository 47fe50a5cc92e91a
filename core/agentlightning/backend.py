"""Backend: what holds the weights of a policy, serves them, and changes them. It may be in this process or a cluster;
algorithms know only this contract, and no tensor library."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import numpy as np

from agentlightning.config import NoConfig
from agentlightning.errors import PolicyError
from agentlightning.loss import LossConfig
from agentlightning.records import Policy
from agentlightning.training_rows import TrainingRow


class Phase(Protocol):
    """Says what goes on, and how far it is (`agentlightning.algorithm.Run.phase`). From any thread."""

    def __call__(self, name: str, *, done: int = 0, total: int = 0) -> None: ...


class Backend(ABC):
    """Base of every backend, registered by the hook ``register_backends`` and chosen as ``algorithm.backend``.

    ``Config`` is a `msgspec.Struct` with ``forbid_unknown_fields=True``: its fields stand in the config's
    ``algorithm`` section, beside the algorithm's. ``name`` is the policy's, of which a run may have several; draws
    depend on ``seed``; ``max_updates`` is how many optimizer steps the run makes at most; ``directory`` is the run's
    folder, for what a backend needs to write beside checkpoints (None: there is none).
    """

    Config: ClassVar[type[msgspec.Struct]] = NoConfig

    def __init__(
        self, config: Any, *, name: str, seed: int, max_updates: int, phase: Phase, directory: Path | None = None
    ) -> None:
        self.config = config
        self.name = name
        self.seed = seed
        self.max_updates = max_updates
        self.phase = phase
        self.directory = directory

    @abstractmethod
    async def start(self) -> None:
        """Loads the weights and begins to serve them. Raises `PolicyError` where it cannot."""

    @abstractmethod
    async def publish(self) -> Policy:
        """Makes the present weights a version that is served, and says where. Weights that have not changed since are
        the same version; versions count from 0, the weights as they were loaded."""

    @abstractmethod
    async def logprobs(self, rows: Sequence[TrainingRow], *, reference: bool = False) -> list[np.ndarray]:
        """The log-probabilities of each row's trained tokens (one array (n,) a row, n the true ones of its mask), at
        the row's temperature: under the present weights, or those that the run began with."""

    @abstractmethod
    async def update(
        self,
        groups: Sequence[Sequence[TrainingRow]],
        loss: LossConfig,
        *,
        step: int,
        epochs: int = 1,
        mini_batches: int = 1,
    ) -> dict[str, float]:
        """Goes over the rows ``epochs`` times, each time in ``mini_batches`` optimizer steps, and returns numbers for
        the log: ``loss`` and ``optimizer_steps`` at least.

        The rows of one group share a mini-batch. A group without any advantage other than zero need not be computed,
        but its tokens and rows count in the means. The same rows, ``step`` and seed give the same weights. Raises
        `AlgorithmError` where the loss or its gradient is not finite.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes all that `restore` needs to go on to the bit. In a thread, while nothing is updated."""

    @abstractmethod
    def restore(self, folder: Path) -> None:
        """Takes back what `save` wrote, with its version. In a thread. Raises `PolicyError` where it cannot."""

    @abstractmethod
    def save_model(self, folder: Path) -> None:
        """Writes the policy as others load it: the run's result. In a thread."""

    @abstractmethod
    async def aclose(self) -> None:
        """Stops serving, and lets the weights go. Safe to call twice, and after a `start` that failed."""

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer, as `transformers` has them, with its chat template."""
        raise PolicyError(f"the backend {type(self).__name__} shows no tokenizer, which demonstrations need")
