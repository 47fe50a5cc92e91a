"""What a run that trains weights can be told, whatever the algorithm."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec

from agentlightning.config import NonNegativeInt, PositiveInt
from agentlightning.credit import CreditChoice
from agentlightning.errors import ConfigError
from agentlightning.policies import EvaluateConfig
from agentlightning.sampler import MAX_TEMPERATURE
from agentlightning.validation import ValidateConfig

POLICY_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")

# At 0 the rollouts of a group are all alike, and above the maximum they are noise.
Temperature = Annotated[float, msgspec.Meta(gt=0, le=MAX_TEMPERATURE)]


class PolicyConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One of several policies: which agents it answers (name patterns), and what is its own of all that the algorithm's
    section says for every policy: its ``credit``, and any key of the ``backend``."""

    agents: list[str]
    credit: CreditChoice | None = None
    backend: dict[str, Any] = {}


class PolicyGradientConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a run that trains weights can be told, whatever the algorithm; the fields of ``backend`` stand beside these.

    A step takes ``batch_tasks`` tasks and runs each ``group_size`` times at ``temperature``, then goes over
    what came of it ``epochs`` times, each time in ``mini_batches`` optimizer steps. ``credit`` names what makes
    advantages of rewards (`agentlightning.credit`). ``policies`` are several to train in place of one, by name; each
    learns from the calls of its own agents alone.

    Groups whose rollouts all earn the same teach nothing. With ``informative_groups`` a step goes on with other tasks,
    up to ``max_tasks`` (4 · ``batch_tasks`` by default), until it has so many groups of another kind; it cancels what
    then still runs, and learns from those alone (dynamic sampling, Yu et al. 2025, DAPO, section 3.2).

    A checkpoint is made every ``checkpoint_every`` steps and at the
    end (0: never). With ``validate`` the run ends with its best weights, and may stop early.
    """

    backend: str = "torch"
    credit: CreditChoice | None = None
    policies: dict[str, PolicyConfig] = {}
    steps: PositiveInt = 100
    batch_tasks: PositiveInt = 8
    group_size: PositiveInt = 8
    informative_groups: NonNegativeInt = 0
    max_tasks: PositiveInt | None = None
    temperature: Temperature = 1.0
    epochs: PositiveInt = 1
    mini_batches: PositiveInt = 1
    checkpoint_every: NonNegativeInt = 10
    evaluate: EvaluateConfig = msgspec.field(default_factory=EvaluateConfig)
    validate: ValidateConfig = msgspec.field(default_factory=ValidateConfig)


def check_informative_groups(config: PolicyGradientConfig) -> None:
    """Raises `ConfigError` for a bound that has no effect, or leaves too few tasks."""
    if config.max_tasks is None:
        return
    if not config.informative_groups:
        raise ConfigError("algorithm.max_tasks: has no effect without informative_groups: a step takes batch_tasks")
    least = max(config.batch_tasks, config.informative_groups)
    if config.max_tasks < least:
        raise ConfigError(
            f"algorithm.max_tasks: expected at least batch_tasks and informative_groups ({least}), "
            f"got {config.max_tasks}"
        )


def check_policies(config: PolicyGradientConfig) -> None:
    """Raises `ConfigError` for a name that no folder can have, an agent pattern or a credit that has no effect."""
    answered: list[tuple[str, str]] = []  # patterns and whose they are: of several that match, the first policy answers
    for name, one in config.policies.items():
        at = f"algorithm.policies.{name}"
        if not POLICY_NAME.fullmatch(name):
            raise ConfigError(
                f"algorithm.policies: {name!r} cannot be a policy's name, which is that of a folder and of a model: "
                "letters, digits, '-', '_' and '.', the first a letter or a digit"
            )
        if not one.agents:
            raise ConfigError(f"{at}.agents: expected the name patterns of the agents that it answers, got none")
        for pattern in one.agents:
            for earlier, policy in answered:
                if _covers(earlier, pattern):
                    raise ConfigError(
                        f"{at}.agents: {pattern!r} has no effect: {earlier!r} of the policy {policy}, which comes "
                        f"first, answers those agents; write {name} before it, or name other agents"
                    )
        answered += [(pattern, name) for pattern in one.agents]
    own = [one.credit is not None for one in config.policies.values()]
    if config.credit is not None and own and all(own):
        raise ConfigError("algorithm.credit: has an effect only where a policy has no credit of its own; leave it out")


def _covers(pattern: str, other: str) -> bool:
    """Whether a name pattern matches whatever ``other`` does: tried on names that stand for all of those."""
    names = [other.replace("*", some).replace("?", "\0") for some in ("", "\0\0")]
    return pattern == other or all(fnmatchcase(name, pattern) for name in names)
