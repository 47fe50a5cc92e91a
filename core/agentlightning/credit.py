"""Credit: rewards → an advantage for each transition, as a plugin.

A credit sees all groups of a step with all their rollouts, outcomes and step rewards, and writes advantages into their
rows. It may first have rollouts run again from their middle, to see what a state is worth. What decides what is learned
never fails in silence: a credit that raises, forgets a transition, or gives it a number that is not finite ends the
step, by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np

from agentlightning.advantages import AdvantageConfig, advantages, advantages_by_component
from agentlightning.config import NoConfig, decode_section, refuse_without_effect, validated
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.loading import explain
from agentlightning.plugins import plugins
from agentlightning.records import Rollout
from agentlightning.training_rows import Group, RolloutRows


class BranchPoint(NamedTuple):
    """The state of a rollout in which its policies have made so many ``calls``."""

    rollout: Rollout
    calls: int


class Branch(Protocol):
    """Runs rollouts again from their middle (`agentlightning.algorithm.Run.branch`)."""

    async def __call__(self, points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
        """``count`` rollouts from each point, under the present weights: those that ended well and went the same way
        until there."""
        ...


class Credit(ABC):
    """Base of every credit, registered by the hook ``register_credit``. ``Config`` is a `msgspec.Struct` with
    ``forbid_unknown_fields=True`` whose fields are the keys of ``algorithm.credit``, next to ``name``. Where it has a
    method ``without_effect``, as `AdvantageConfig.without_effect`, the keys that it names are refused."""

    Config: ClassVar[type[msgspec.Struct]] = NoConfig

    def __init__(self, config: Any) -> None:
        """Raises `ConfigError` for a value that the config's types do not allow."""
        self.config = validated(config, at="algorithm.credit")

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        """Runs what it needs to know beyond what was collected, before `assign`; most need nothing. Rollouts that it
        adds to a group are learned from like the others."""

    @abstractmethod
    def assign(self, groups: Sequence[Group]) -> Mapping[str, float] | None:
        """Gives every transition of every rollout its advantage: `TrainingRow.set_advantage` for one, and
        `RolloutRows.set_advantage` for all of a rollout. Returns numbers for the log, if it has any.

        The order of ``groups`` depends on nothing but what they hold. A statistic over rollouts is taken before any
        is passed over: a rollout in which the policy wrote nothing counts, too.
        """


class Broadcast(Credit):
    """Every transition of a rollout gets the rollout's advantage over its group, of its total reward: what GRPO and
    its kin do (`agentlightning.advantages`)."""

    Config = AdvantageConfig

    def assign(self, groups: Sequence[Group]) -> None:
        if self.config.normalize_then_sum:
            parts = [part for group in groups for member in group.rollouts for part in member.rollout.rewards]
            weights = {part.name: part.weight for part in parts}
            tables = [_components(group, sorted(weights)) for group in groups]
            scores = advantages_by_component(tables, np.array([weights[name] for name in sorted(weights)]), self.config)
        else:
            rewards = [np.array([member.rollout.total_reward for member in group.rollouts]) for group in groups]
            scores = advantages(rewards, self.config)
        for group, of_group in zip(groups, scores, strict=True):
            for member, advantage in zip(group.rollouts, of_group, strict=True):
                member.set_advantage(float(advantage))


CreditChoice = str | dict[str, Any]
"""A credit as a config names it: its name, or ``{name: …, option: …}``."""


def load_credit(
    choice: str | Mapping[str, Any], *, advantage: AdvantageConfig | None = None, at: str = "algorithm.credit"
) -> Credit:
    """The credit that a config names at the path ``at`` (`CreditChoice`).

    ``advantage`` are the options that `Broadcast` has where the config gives none. Raises `ConfigError` or
    `PluginError`.
    """
    options = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{at}.name: missing; `agl plugins` lists the credit plugins that are installed")
    kind: type[Credit] = plugins().find("credit", name)
    values = options
    if issubclass(kind, Broadcast) and advantage is not None:
        values = {**msgspec.structs.asdict(advantage), **options}
    credit = kind(decode_section(values, kind.Config, at=at))
    unused = getattr(credit.config, "without_effect", dict)
    refuse_without_effect(options, unused(), at=at)
    return credit


def name_of(choice: str | Mapping[str, Any]) -> str:
    """The name in a `CreditChoice`."""
    return choice if isinstance(choice, str) else str(choice.get("name"))


def give_credit(
    assign: Callable[[Sequence[Group]], Mapping[str, float] | None], groups: Sequence[Group], *, name: str, step: int
) -> dict[str, float]:
    """Has ``assign`` write the advantages of a step, and holds it to its word; returns its numbers for the log.

    Raises `AlgorithmError` that names the credit and the rollout: it raised, gave a number that is not finite, or
    forgot a transition.
    """
    where = f"step {step}: the credit {name}"
    for row in (row for group in groups for row in group.rows):
        row.advantages[row.mask] = np.nan
    try:
        numbers = assign(groups)
    except AlgorithmError:
        raise
    except Exception as error:
        raise AlgorithmError(f"{where} failed: {explain(error)}") from error
    for row in (row for group in groups for row in group.rows):
        values = row.advantages[row.mask]
        if np.isnan(values).any():
            raise AlgorithmError(f"{where} gave tokens of rollout {row.rollout_id} no advantage")
        if not np.isfinite(values).all():
            raise AlgorithmError(f"{where} gave tokens of rollout {row.rollout_id} an infinite advantage")
    return dict(numbers or {})


def _components(group: Group, names: Sequence[str]) -> np.ndarray:
    """The values (R, K) of the named rewards, NaN where a rollout has none; one given several times is summed."""
    table = np.full((len(group.rollouts), len(names)), np.nan)
    for row, member in enumerate(group.rollouts):
        for part in member.rollout.rewards:
            column = names.index(part.name)
            table[row, column] = np.nan_to_num(table[row, column]) + (part.value or 0.0)
    return table
