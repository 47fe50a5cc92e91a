"""What can be said of a judge."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec

from agentlightning.config import NonNegativeInt, PositiveInt, Section, refuse_without_effect
from agentlightning.errors import ConfigError
from agentlightning_openai.chat_model import ChatModelConfig

AT = "judge"
CACHE = "runs/judge"

AtLeastTwo = Annotated[int, msgspec.Meta(ge=2)]
AtOnce = Annotated[int, msgspec.Meta(ge=2, le=26)]
"""Candidates are named by a letter."""
MaxCharacters = Annotated[int, msgspec.Meta(ge=100)]

ONLY_OF = {"at_once": "relative", "opponents": "pairwise", "scores": "pairwise"}
"""Options that only one mode has, by name."""


class JudgeModelConfig(ChatModelConfig, kw_only=True, forbid_unknown_fields=True):
    """The model that judges. Two attempts fit into ``runner.reward_timeout``, which is 60 s by default."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.0
    timeout: Annotated[float, msgspec.Meta(gt=0, le=1e7)] = 25.0
    retries: NonNegativeInt = 1


class JudgeConfig(Section):
    """Who judges, by what, and what is shown.

    ``rubric`` is a text or a list of criteria. ``mode``: the rollouts of a group are ranked (``relative``) or compared
    by twos (``pairwise``), or each is given a score between the two ends of ``scale`` (``absolute``), as are in every
    mode those that are compared with none. ``samples``: how often a ranking or a score is asked for; every second
    ranking shows the candidates in the reverse order.

    ``at_once``: how many candidates a ranking has at most; a larger group is ranked in overlapping parts.
    ``opponents``: with how many others each is compared at most. ``scores``: how comparisons become numbers.

    ``show``: the final answer, or with ``transcript`` what was said and which tools were called as well; of each at
    most ``max_characters``. ``show_expected`` shows the task's expected answer. A reply that cannot be used is asked
    for again up to ``retries`` times. ``concurrency`` are calls at once; ``cache`` is the folder of what was replied,
    None for none.
    """

    model: JudgeModelConfig
    rubric: str | list[str]
    mode: Literal["relative", "pairwise", "absolute"] = "relative"
    scale: tuple[float, float] = (1.0, 10.0)
    samples: PositiveInt = 1
    at_once: AtOnce = 8
    opponents: AtLeastTwo = 8
    scores: Literal["bradley_terry", "win_rate"] = "bradley_terry"
    show: Literal["output", "transcript"] = "output"
    show_expected: bool = False
    max_characters: MaxCharacters = 8000
    retries: NonNegativeInt = 2
    concurrency: PositiveInt = 16
    cache: str | None = CACHE

    @property
    def criteria(self) -> str:
        """The rubric as text, a line for each criterion."""
        return self.rubric if isinstance(self.rubric, str) else "\n".join(f"- {one}" for one in self.rubric)

    @property
    def scored_samples(self) -> int:
        """How often a score is asked for: without a temperature every reply is the same."""
        return self.samples if self.model.temperature > 0 else 1


def check(config: JudgeConfig) -> None:
    """Raises `ConfigError` for a rubric that says nothing, a scale that is none, and an option without effect."""
    lines = [config.rubric] if isinstance(config.rubric, str) else config.rubric
    if not lines or not all(line.strip() for line in lines):
        raise ConfigError(f"{AT}: rubric: expected a text, or a list of criteria; there is an empty one")
    low, high = config.scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{AT}: scale: expected [worst, best], the worst lower, got [{low:g}, {high:g}]")
    unused = {name: f"mode is {mode}" for name, mode in ONLY_OF.items() if mode != config.mode}
    if config.mode == "pairwise":
        if config.model.temperature == 0:
            unused["samples"] = "model.temperature is above 0: every pair is asked about twice as it is"
    elif config.mode == "absolute" and config.model.temperature == 0:
        unused["samples"] = "model.temperature is above 0"
    refuse_without_effect(_set_fields(config), unused, at=AT)


def _set_fields(config: JudgeConfig) -> list[str]:
    """The fields that are not as they are by default."""
    return [
        field.name
        for field in msgspec.structs.fields(JudgeConfig)
        if not field.required and getattr(config, field.name) != field.default
    ]
