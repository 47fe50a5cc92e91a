"""Whole choices of loss and advantage by name: what a named version of a project computes by default.

The values are those projects' own; `tests/parity` compares losses and advantages with TRL's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import msgspec

from agentlightning.advantages import AdvantageConfig
from agentlightning.config import decode_section, refuse_without_effect
from agentlightning.errors import ConfigError
from agentlightning.loss import LossConfig


class Preset(msgspec.Struct, kw_only=True, frozen=True):
    """A loss, its aggregation, and the form of the advantage."""

    loss: LossConfig
    advantage: AdvantageConfig


_TRL_ADVANTAGE = AdvantageConfig(scale="group", ddof=1, eps=1e-4)
_VERL_ADVANTAGE = AdvantageConfig(scale="group", ddof=1, eps=1e-6)
_UNSCALED = AdvantageConfig(scale="none")
_LEAVE_ONE_OUT = AdvantageConfig(baseline="leave_one_out", scale="none")


def _trl(advantage: AdvantageConfig = _TRL_ADVANTAGE, **loss: Any) -> Preset:
    return Preset(loss=LossConfig(kl_bias_correction=True, **loss), advantage=advantage)


def _verl(advantage: AdvantageConfig = _VERL_ADVANTAGE, **loss: Any) -> Preset:
    return Preset(loss=LossConfig(**loss), advantage=advantage)


PRESETS: Mapping[str, Preset] = {
    "trl-1.16/dapo": _trl(aggregation="token_mean"),
    "trl-1.16/grpo": _trl(aggregation="sequence_mean"),
    "trl-1.16/bnpo": _trl(aggregation="micro_batch_token_mean"),
    # scale_rewards="none" and epsilon_high=5.0 are what TRL's documentation sets for these two papers.
    "trl-1.16/dr_grpo": _trl(_UNSCALED, aggregation="constant"),
    "trl-1.16/cispo": _trl(kind="cispo", cispo_max=5.0, aggregation="token_mean"),
    "trl-1.16/gspo": _trl(ratio="sequence", aggregation="sequence_mean"),
    "trl-1.16/sapo": _trl(kind="sapo", aggregation="sequence_mean"),
    "verl-0.9/grpo": _verl(dual_clip=3.0, aggregation="token_mean"),
    "verl-0.9/dr_grpo": _verl(_UNSCALED, dual_clip=3.0, aggregation="constant"),
    "verl-0.9/rloo": _verl(_LEAVE_ONE_OUT, dual_clip=3.0, aggregation="token_mean"),
    "verl-0.9/gspo": _verl(ratio="sequence", aggregation="sequence_mean"),
    "verl-0.9/sapo": _verl(kind="sapo", aggregation="sequence_mean"),
    "verl-0.9/cispo": _verl(kind="cispo", cispo_min=0.8, cispo_max=1.2, aggregation="token_mean"),
    # ART's default loss; rLLM's advantage has the same form.
    "art-0.5/cispo": Preset(
        loss=LossConfig(kind="cispo", cispo_min=0.0, cispo_max=5.0, aggregation="sequence_mean"),
        advantage=AdvantageConfig(scale="group", ddof=0, eps=1e-6),
    ),
}


def resolve_preset(
    name: str, loss: Mapping[str, Any] | None = None, advantage: Mapping[str, Any] | None = None, *, at: str = ""
) -> Preset:
    """The preset of that name, with single fields of its loss and advantage replaced.

    ``at`` is where the config holds them, for the errors. Raises `ConfigError`, also for a field without any effect.
    """
    preset = PRESETS.get(name)
    if preset is None:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{at}preset: there is no {name}; {hint} known: {', '.join(PRESETS)}")
    loss, advantage = dict(loss or {}), dict(advantage or {})
    chosen = Preset(
        loss=decode_section({**msgspec.structs.asdict(preset.loss), **loss}, LossConfig, at=f"{at}loss"),
        advantage=decode_section(
            {**msgspec.structs.asdict(preset.advantage), **advantage}, AdvantageConfig, at=f"{at}advantage"
        ),
    )
    refuse_without_effect(loss, chosen.loss.without_effect(), at=f"{at}loss")
    refuse_without_effect(advantage, chosen.advantage.without_effect(), at=f"{at}advantage")
    return chosen
