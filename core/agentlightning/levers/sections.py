"""The config of each algorithm that is compared, made of one file: what they share, and what is their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from agentlightning.algorithm import Algorithm
from agentlightning.config import CompareConfig, Config, merged
from agentlightning.errors import ConfigError
from agentlightning.evaluation import untrained
from agentlightning.plugins import plugins
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.records import Record
from agentlightning.serving import UNTRAINED

BASELINE = "baseline"
"""The agent as it is."""
COMPARISON = "compare"
"""The comparison itself."""
COMBINED = "+"
"""Stands between the names of two levers that were pulled one after the other."""
SHARED = ("model", "engine", "server", "backend", "temperature")
"""Keys that every algorithm takes from the section ``algorithm``, where it has them: which model runs, where, how."""
WITHOUT_ROLLOUTS = ("demonstrations", "from_live")
"""Keys of algorithms that train weights, with which a step costs no rollout."""


class Lever(Record, kw_only=True):
    """An algorithm that is compared: its name in the table, and the config of its run."""

    name: str
    config: Config

    @property
    def trains_weights(self) -> bool:
        return issubclass(_kind(self.config.algorithm), PolicyGradient)


def levers_of(config: Config, names: Sequence[str] | None, budget: int | None) -> list[Lever]:
    """The algorithms ``names`` (None: those of the section ``compare``), each with the same budget.

    Raises `ConfigError` for a name that nothing is known of, and for a key that would have one of them compared on
    other terms than the others.
    """
    budget = config.budget if budget is None else budget
    if budget is None:
        raise ConfigError("budget: say how many rollouts each algorithm may cost: --budget 2000, or `budget: 2000`")
    names = list(config.compare.algorithms if names is None else names)
    if not names:
        raise ConfigError(
            "compare.algorithms: nothing to compare; name them there, or with --algorithms few_shot,gepa,grpo"
        )
    for name in names:
        if name in (BASELINE, COMPARISON, "") or COMBINED in name or "/" in name or names.count(name) > 1:
            raise ConfigError(f"compare.algorithms: {name!r} cannot be, or is twice, the name of what is compared")
    levers = [_lever(config, name, budget) for name in names]
    _refuse_other_temperatures(levers)
    return levers


def baseline_of(config: Config) -> Config:
    """The agent as it is, on the held-out tasks: with the model of the section ``algorithm``, or its own."""
    section = {**untrained(config.algorithm), "samples": samples_of(config)}
    if "model" in section:
        section["greedy"] = False
    return _run_config(config, BASELINE, section, budget=None)


def combined(config: Config, prompt: Lever, weights: Lever, run_id: str) -> Lever:
    """``weights`` trained on top of what the run ``run_id`` of ``prompt`` has learned to tell the agents."""
    name = f"{prompt.name}{COMBINED}{weights.name}"
    changed = replace(weights.config, name=run_name(config, name), prompts_from=run_id)
    return Lever(name=name, config=changed)


def samples_of(config: Config) -> int:
    """How often each held-out task is run."""
    given = config.compare.samples
    return int((config.algorithm.get("evaluate") or {}).get("samples", 1)) if given is None else given


def _lever(config: Config, name: str, budget: int) -> Lever:
    own = {"name": name, **config.compare.algorithms.get(name, {})}
    kind = _kind(own)
    if own["name"] == config.algorithm.get("name"):
        section = merged(config.algorithm, own)
    else:
        known = _keys(kind, own)
        shared = {key: config.algorithm[key] for key in SHARED if key in config.algorithm and key in known}
        if not issubclass(kind, PolicyGradient) and "model" in shared:
            shared["model"] = {key: value for key, value in shared["model"].items() if key not in UNTRAINED}
        section = merged(shared, own)
    try:
        section = _evaluated(section, _keys(kind, section), samples_of(config))
        if issubclass(kind, PolicyGradient):
            section = _steps_paid_for(section, budget)
        elif "budget" in _keys(kind, section):
            section = _own_budget(section, budget)
        planned(section)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return Lever(name=name, config=_run_config(config, name, section, budget=budget))


def planned(section: Mapping[str, Any]) -> Any:
    """The config of the algorithm that a section describes. Raises `ConfigError`."""
    return _kind(section).from_section({key: value for key, value in section.items() if key != "name"}).config


def _run_config(config: Config, name: str, section: dict[str, Any], *, budget: int | None) -> Config:
    return replace(config, algorithm=section, budget=budget, name=run_name(config, name), compare=CompareConfig())


def run_name(config: Config, name: str) -> str:
    """The name of a lever's run."""
    return f"{config.name or 'levers'}/{name}"


def _kind(section: Mapping[str, Any]) -> type[Algorithm]:
    found: type[Algorithm] = plugins().find("algorithms", str(section["name"]))
    return found


def _keys(kind: type[Algorithm], section: Mapping[str, Any]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind.config_type(section))}


def _evaluated(section: dict[str, Any], keys: set[str], samples: int) -> dict[str, Any]:
    """The section with the held-out tasks run as they are for all: ``samples`` times each, sampled as in training."""
    if "evaluate" in keys:
        return {**section, "evaluate": {"greedy": False, **(section.get("evaluate") or {}), "samples": samples}}
    if "samples" in keys:
        if section.get("samples", samples) != samples:
            raise ConfigError(
                f"algorithm.samples: {section['samples']} where the others run each held-out task {samples} times: "
                "leave it out, or say it for all in compare.samples"
            )
        return {**section, "samples": samples}
    if samples != 1:
        raise ConfigError(
            f"{section['name']} runs each held-out task once, and the others would run it {samples} times: leave out "
            "compare.samples and algorithm.evaluate.samples"
        )
    return section


def _own_budget(section: dict[str, Any], budget: int) -> dict[str, Any]:
    """An algorithm that plans with a budget of its own plans with this one."""
    given = section.get("budget", budget)
    if isinstance(given, int) and given > budget:
        raise ConfigError(f"algorithm.budget: {given} is more than the budget of all, {budget}: leave it out")
    return {**section, "budget": given}


def _steps_paid_for(section: dict[str, Any], budget: int) -> dict[str, Any]:
    """As many steps as the budget pays for, at most those that the section says, so that a schedule of the learning
    rate ends where the run does. One, at least: the run then says what it lacks."""
    if any(section.get(key) is not None for key in WITHOUT_ROLLOUTS):
        return section
    plan = planned(section)
    of_step = plan.batch_tasks * plan.group_size
    steps = min(plan.steps if "steps" in section else budget, budget // of_step)
    while steps > 1 and steps * of_step + _validations(plan, steps) > budget:
        steps -= 1
    return {**section, "steps": max(1, steps)}


def _validations(plan: Any, steps: int) -> int:
    """The rollouts that a run of so many steps validates with."""
    validate = plan.validate
    if not validate.every:
        return 0
    times = 1 + steps // validate.every + (steps % validate.every > 0)
    return int(times * validate.tasks * validate.samples)


def _refuse_other_temperatures(levers: Sequence[Lever]) -> None:
    """Raises `ConfigError` where models would be evaluated at temperatures that differ."""
    found = {}
    for lever in levers:
        plan = planned(lever.config.algorithm)
        if getattr(plan, "model", None) is not None and hasattr(plan, "temperature"):
            found[lever.name] = float(plan.temperature)
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {temperature:g}" for name, temperature in found.items())
        raise ConfigError(
            f"algorithm.temperature: the held-out tasks are run alike for all, and the temperatures differ: {said}; "
            "say one in `algorithm`"
        )
