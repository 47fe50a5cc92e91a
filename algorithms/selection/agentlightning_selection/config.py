"""The options of a selection."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agentlightning.config import NonNegative, Positive, PositiveInt


class Candidate(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A model, where it is served, and what it costs in dollars per million tokens.

    Without ``base_url`` it is asked for at the endpoint of the agent's own client. The key is read from the
    environment variable ``api_key_env``.
    """

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    input_price: NonNegative = 0.0
    output_price: NonNegative = 0.0


class SelectionConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The first of ``candidates`` is what the agent uses before. ``agents`` are name patterns of the agents whose
    model is chosen, those the run trains by default.

    ``objective``: ``reward`` looks for the greatest mean of reward − ``cost_weight`` · dollars; ``cheapest`` for
    the least cost among the candidates whose mean reward is at most ``margin`` under the best.

    Each round runs every candidate left on the same ``batch`` of tasks, until every task was used once, one
    candidate is left, or ``budget`` dollars are spent. Nobody is dropped before ``minimum`` tasks, and the best
    one is dropped with a probability of at most 1 − ``confidence``.
    """

    candidates: list[Candidate]
    agents: list[str] | None = None
    objective: Literal["reward", "cheapest"] = "reward"
    cost_weight: NonNegative = 0.0
    margin: NonNegative = 0.02
    batch: PositiveInt = 32
    minimum: PositiveInt = 30
    confidence: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    budget: Positive | None = None
