"""A backend without weights: a policy that chooses one of several canned answers, one token each, by a softmax over its
preferences, and learns them by gradient ascent. Served by the stub server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from stub_answers import Answer, Choice, Received
from stub_server import StubServer

from agentlightning.backend import Backend
from agentlightning.loss import LossConfig
from agentlightning.records import Policy
from agentlightning.training_rows import TrainingRow


class BanditConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    answers: list[str]
    lr: float = 1.0


class BanditBackend(Backend):
    Config = BanditConfig

    async def start(self) -> None:
        self.version, self.preferences = 0, np.zeros(len(self.config.answers))
        self._rng, self._stub = np.random.default_rng(self.seed), StubServer()
        self._stub.reply(self._answer)

    async def publish(self) -> Policy:
        return Policy(name=self.name, version=self.version, model="bandit", base_url=self._stub.base_url)

    def _answer(self, request: Received) -> Answer:
        chosen = int(self._rng.choice(len(self.preferences), p=np.exp(self._log_softmax())))
        choice = Choice(self.config.answers[chosen], token_ids=[chosen], logprobs=[float(self._log_softmax()[chosen])])
        return Answer([choice], policy_version=self.version)

    def _log_softmax(self) -> np.ndarray:
        return self.preferences - np.log(np.exp(self.preferences).sum())

    async def logprobs(self, rows: Sequence[TrainingRow], *, reference: bool = False) -> list[np.ndarray]:
        return [self._log_softmax()[row.token_ids[row.mask]] for row in rows]

    async def update(
        self, groups: Sequence[Sequence[TrainingRow]], loss: LossConfig, *, step: int, **_: Any
    ) -> dict[str, float]:
        rows = [row for group in groups for row in group]
        for row in rows:
            for token, advantage in zip(row.token_ids[row.mask], row.advantages[row.mask], strict=True):
                one_hot = np.arange(len(self.preferences)) == token
                self.preferences += self.config.lr * advantage * (one_hot - np.exp(self._log_softmax())) / len(rows)
        self.version += 1
        return {"loss": 0.0, "optimizer_steps": 1}

    def save(self, folder: Path) -> None:
        np.save(folder / "preferences.npy", [*self.preferences, self.version])

    def restore(self, folder: Path) -> None:
        *preferences, version = np.load(folder / "preferences.npy")
        self.preferences, self.version = np.array(preferences), int(version)

    def save_model(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.save(folder)

    async def aclose(self) -> None:
        self._stub.close()
