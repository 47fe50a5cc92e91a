"""The options of a selection, by its strategy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from agentlightning.config import NonNegative, Positive, PositiveInt

Confidence = Annotated[float, msgspec.Meta(gt=0.5, lt=1)]
Discount = Annotated[float, msgspec.Meta(gt=0, le=1)]
Objective = Literal["reward", "cheapest", "fastest"]


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
    """What every strategy has. The first of ``candidates`` is what the agent uses before. ``agents`` are name patterns
    of the agents whose model is chosen, those the run trains by default. ``batch`` tasks are run at once. A difference
    counts where chance would give it with a probability of at most 1 − ``confidence``; what does not count is a tie.
    """

    candidates: list[Candidate]
    agents: list[str] | None = None
    batch: PositiveInt = 32
    confidence: Confidence = 0.95


class FixedConfig(SelectionConfig, kw_only=True):
    """For one model in the end. ``objective``: ``reward`` looks for the greatest mean of reward − ``cost_weight`` ·
    dollars − ``time_weight`` · seconds of its model calls; ``cheapest`` and ``fastest`` for the least mean of dollars,
    or of seconds, among those whose mean reward is at most ``margin`` under the best."""

    objective: Objective = "reward"
    cost_weight: NonNegative = 0.0
    time_weight: NonNegative = 0.0
    margin: NonNegative = 0.02


class RacingConfig(FixedConfig, kw_only=True):
    """Each round runs every candidate left on the same ``batch`` of tasks, until every task was used once, one
    candidate is left, ``budget`` rollouts were run or ``max_dollars`` are spent. Nobody is dropped before ``minimum``
    tasks, and the best one is dropped with a probability of at most 1 − ``confidence``."""

    strategy: Literal["racing"] = "racing"
    minimum: PositiveInt = 30
    budget: PositiveInt | None = None
    max_dollars: Positive | None = None


class HalvingConfig(FixedConfig, kw_only=True):
    """``budget`` rollouts in all, the same number in each round; after a round the best 1 / ``eta`` of the candidates
    stay."""

    strategy: Literal["successive_halving"]
    budget: PositiveInt
    eta: Annotated[int, msgspec.Meta(ge=2, le=100)] = 2


class TrafficConfig(SelectionConfig, kw_only=True):
    """One candidate for each task, chosen by what those before have given: ``budget`` rollouts, one for each task where
    it is left out. What is learned from is reward − ``cost_weight`` · dollars − ``time_weight`` · seconds. With
    ``discount`` below 1 each decision weighs what came before by that much less, for traffic that changes."""

    batch: PositiveInt = 1
    budget: PositiveInt | None = None
    cost_weight: NonNegative = 0.0
    time_weight: NonNegative = 0.0
    discount: Discount = 1.0


class ThompsonConfig(TrafficConfig, kw_only=True):
    """``posterior``: ``gaussian`` takes any reward, ``beta`` those from 0 to 1."""

    strategy: Literal["thompson"]
    posterior: Literal["gaussian", "beta"] = "gaussian"


class UCBConfig(TrafficConfig, kw_only=True):
    """``exploration`` is ξ, and ``reward_range`` B, of the confidence bound."""

    strategy: Literal["ucb"]
    exploration: Positive = 0.5
    reward_range: Positive = 1.0


class ContextualConfig(SelectionConfig, kw_only=True):
    """A model for each rollout, by ``features`` of what its user says first: the name or folder of a sentence
    embedding, or ``module:function`` from a text to numbers.

    ``learner``: ``nearest`` runs every candidate on the training tasks, and predicts from those nearest;
    ``linucb`` runs one for each task. ``budget`` rollouts at most.

    ``quality_price`` is what a unit of outcome may cost, in dollars a rollout: the choice is the greatest predicted
    outcome − dollars / quality_price; None: dollars do not count. ``cost_limit`` finds the price under which the mean
    dollars a rollout stay below it. With ``compare_held_out`` every candidate runs on the held-out tasks, too.
    """

    strategy: Literal["contextual"]
    batch: PositiveInt = 64
    features: str = "sentence-transformers/all-MiniLM-L6-v2"
    learner: Literal["nearest", "linucb"] = "nearest"
    budget: PositiveInt | None = None
    quality_price: Positive | None = None
    cost_limit: Positive | None = None
    compare_held_out: bool = False
    neighbours: tuple[PositiveInt, ...] = (10, 20, 40, 80, 160)
    temperatures: tuple[Positive, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)
    folds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5
    alpha: NonNegative = 1.0
    regularisation: Positive = 1.0


CONFIGS: dict[str, type[Any]] = {
    "racing": RacingConfig,
    "successive_halving": HalvingConfig,
    "thompson": ThompsonConfig,
    "ucb": UCBConfig,
    "contextual": ContextualConfig,
}
"""The type of each strategy's options."""
