"""The ``algorithm`` section of a search for demonstrations."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from agentlightning.config import NonNegativeInt, PositiveInt, Weight
from agentlightning.recorded import FromLive
from agentlightning.serving import TORCH

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]


class FewShotConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Demonstrations come from ``bootstrap_rollouts`` rollouts of training tasks, ``batch_tasks`` at once and each task
    ``bootstrap_samples`` times; or from ``labelled``, a JSONL file of ``{"messages": […], "agent": …}``, or from a live
    run (``from_live``), and then from no rollouts unless ``bootstrap_rollouts`` says how many.

    Good enough is an outcome of ``threshold``, or without one any above the mean. Candidates are sets of as many as
    ``counts`` says, ``candidates`` of them in all, in which no demonstration is longer than
    ``max_demonstration_characters``, and all of an agent together are not longer than ``max_characters``. They are
    compared on ``validation_tasks`` that are set apart from the training tasks (half of these, at most 64), and the
    best with none at all: it is published where chance would make it better with a probability of at most
    1 − ``confidence``.

    Held-out tasks are run ``samples`` times. ``model``, ``engine`` and ``server`` are what `eval` takes: the agents
    that the config would train call this model, at ``temperature``, and at ``bootstrap_temperature`` (that temperature,
    and at least 0.7) where demonstrations are looked for.
    """

    counts: list[PositiveInt] = msgspec.field(default_factory=lambda: [1, 2, 4, 8])
    candidates: PositiveInt = 12
    validation_tasks: PositiveInt | None = None
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    bootstrap_rollouts: NonNegativeInt | None = None
    bootstrap_samples: PositiveInt = 2
    bootstrap_temperature: Temperature | None = None
    batch_tasks: PositiveInt = 16
    threshold: Weight | None = None
    max_demonstration_characters: PositiveInt = 4000
    max_characters: PositiveInt = 16000
    labelled: str | None = None
    from_live: FromLive | None = None
    samples: PositiveInt = 1
    model: dict[str, Any] | None = None
    engine: dict[str, Any] = {}
    server: str = TORCH
    temperature: Temperature = 1.0
