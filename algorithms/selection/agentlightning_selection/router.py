"""The router that a contextual selection learns: features of a text → the place of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.model_routing import Router
from agentlightning_selection.features import features_of
from agentlightning_selection.linucb import LinUCB
from agentlightning_selection.neighbours import Neighbours
from agentlightning_selection.pricing import route

SETTINGS = "router.json"


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a router's folder says besides its arrays. ``price`` None: dollars do not count; ``allowed`` are the places
    of the models that it may choose."""

    learner: Literal["nearest", "linucb"]
    features: str
    price: float | None
    allowed: list[int]
    count: int = 0
    temperature: float = 0.0
    alpha: float = 0.0


class Scaling:
    """Features as they are learned from. Embeddings stay as they are; a function's are brought to mean 0 and a mean
    square of 1 / D over the training tasks, so that no feature counts for its unit."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean, self.scale = mean.astype(np.float32), scale.astype(np.float32)

    @classmethod
    def of(cls, features: np.ndarray, *, is_embedding: bool) -> Scaling:
        """For features (N, D)."""
        dimensions = features.shape[1]
        if is_embedding:
            return cls(np.zeros(dimensions), np.ones(dimensions))
        deviation = features.std(axis=0)
        return cls(features.mean(axis=0), 1 / np.where(deviation > 0, deviation, 1) / math.sqrt(dimensions))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) * self.scale


def write_nearest(folder: Path, settings: Settings, neighbours: Neighbours, scaling: Scaling) -> None:
    """Writes a router that predicts from neighbours."""
    arrays = {"features": neighbours.features, "outcomes": neighbours.outcomes, "costs": neighbours.costs}
    _write(folder, settings, {**arrays, "mean": scaling.mean, "scale": scaling.scale})


def write_linucb(folder: Path, settings: Settings, linear: LinUCB, costs: np.ndarray) -> None:
    """Writes a router by LinUCB; ``costs`` (M,) are mean dollars a rollout."""
    _write(folder, settings, {"inverses": linear.inverses, "sums": linear.sums, "costs": costs})


def _write(folder: Path, settings: Settings, arrays: dict[str, np.ndarray]) -> None:
    """Plain files, the same bytes for the same content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(settings)))


class ContextualRouter(Router):
    """Chooses as `agentlightning_selection.contextual` has learned."""

    def __init__(self, folder: Path | None, choices: int) -> None:
        super().__init__(folder, choices)
        if folder is None:
            raise PolicyError("a contextual router needs the folder of what it has learned; its resource names none")
        try:
            self.settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
            arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
            self._choose = self._nearest(arrays) if self.settings.learner == "nearest" else self._linucb(arrays)
        except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
            raise PolicyError(f"{folder} holds no contextual router that can be read: {error}") from error
        self._features = features_of(self.settings.features)

    def choose(self, text: str) -> int:
        return self._choose(self._features([text])[0])

    def _nearest(self, arrays: dict[str, np.ndarray]) -> Callable[[np.ndarray], int]:
        settings, scaling = self.settings, Scaling(arrays["mean"], arrays["scale"])
        neighbours = Neighbours(
            arrays["features"],
            arrays["outcomes"],
            arrays["costs"],
            count=settings.count,
            temperature=settings.temperature,
        )
        price = math.inf if settings.price is None else settings.price

        def choose(features: np.ndarray) -> int:
            outcomes, costs = neighbours.predict(scaling(features)[None])
            allowed = settings.allowed
            return allowed[int(route(outcomes[:, allowed], costs[:, allowed], price)[0])]

        return choose

    def _linucb(self, arrays: dict[str, np.ndarray]) -> Callable[[np.ndarray], int]:
        settings, inverses = self.settings, arrays["inverses"]
        linear = LinUCB(inverses.shape[0], inverses.shape[1], alpha=settings.alpha, regularisation=1.0)
        linear.inverses, linear.sums = inverses, arrays["sums"]
        penalty = np.zeros(self.choices) if settings.price is None else arrays["costs"] / settings.price

        def choose(features: np.ndarray) -> int:
            return linear.choose(with_intercept(features), settings.allowed, penalty)

        return choose


def with_intercept(features: np.ndarray) -> np.ndarray:
    """Features (…, D) with a 1 before them, in double precision."""
    ones = np.ones((*features.shape[:-1], 1))
    return np.concatenate([ones, features.astype(np.float64)], axis=-1)
