"""Selection: which of several model endpoints is worth its price, for this agent and these tasks."""

from __future__ import annotations

import logging
import math
from collections import Counter

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.causes import explain_rollouts
from agentlightning.config import refuse_without_effect
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.recording import matches
from agentlightning.records import ModelChoice, Rollout, Span
from agentlightning.training_rows import Group
from agentlightning_selection.config import Candidate, SelectionConfig
from agentlightning_selection.race import Race

logger = logging.getLogger(__name__)

_OF_OBJECTIVE = {
    field.name: field.default
    for field in msgspec.structs.fields(SelectionConfig)
    if field.name in ("cost_weight", "margin")
}
"""What counts under one objective alone, with its defaults."""


class Selection(Algorithm):
    """Races the candidates on the same tasks, round by round, drops those that cannot win, and publishes the winner
    as a `ModelChoice`. How it decides: `agentlightning_selection.race`.

    A round is a step, and each candidate's collection in it has a key of its own, so a race that was cut off replays
    what it has and goes on.
    """

    Config = SelectionConfig

    def __init__(self, config: SelectionConfig) -> None:
        super().__init__(config)
        if len(config.candidates) < 2:
            raise ConfigError(f"algorithm.candidates: expected at least 2 models, got {len(config.candidates)}")
        twice = [key for key, count in Counter(map(_key, config.candidates)).items() if count > 1]
        if twice:
            raise ConfigError(f"algorithm.candidates: {twice[0][0]} is there twice")
        refuse_without_effect(
            [name for name, default in _OF_OBJECTIVE.items() if getattr(config, name) != default],
            {"margin": "objective is cheapest"}
            if config.objective == "reward"
            else {"cost_weight": "objective is reward"},
            at="algorithm",
        )

    async def run(self, run: Run) -> None:
        choices = self._choices(run)
        labels = _labels(choices)
        size = min(self.config.batch, len(run.tasks))
        rounds = math.ceil(len(run.tasks) / size)
        race = Race(len(choices), rounds, self.config)
        batch = run.batches(size)
        excluded: list[Rollout] = []

        await run.publish(choices[0])
        await run.check()
        await run.evaluate(step=0)
        for round in range(1, rounds + 1):
            tasks = batch(round)[: len(run.tasks) - (round - 1) * size]
            for index in race.remaining:
                async for group in run.collect(tasks, step=round, resources=[choices[index]], key=f"{round}/{index}"):
                    await _record(race, index, group, choices[index], run)
                    excluded += group.excluded
            for index, reason in race.eliminate().items():
                logger.info("round %d: %s is out: %s", round, labels[index], reason)
                run.result(f"{labels[index]} out after round {round}", reason)
            run.log(_metrics(race, labels), step=round)
            run.progress(step=round, steps=rounds)
            if race.decided or (self.config.budget is not None and race.spent >= self.config.budget):
                break

        winner = race.winner()
        if winner is None:
            raise AlgorithmError(f"no rollout of any candidate could be scored: {explain_rollouts(excluded)}")
        await run.publish(choices[winner])
        await run.evaluate(step=round)
        run.result("model", labels[winner])

    def _choices(self, run: Run) -> list[ModelChoice]:
        """One version of one resource per candidate: a rollout's record names the one it ran with."""
        agents = tuple(self.config.agents if self.config.agents is not None else run.train)
        return [
            ModelChoice(
                name="model",
                version=index,
                agents=agents,
                model=candidate.model,
                base_url=candidate.base_url,
                api_key_env=candidate.api_key_env,
                input_price=candidate.input_price,
                output_price=candidate.output_price,
            )
            for index, candidate in enumerate(self.config.candidates)
        ]


async def _record(race: Race, index: int, group: Group, choice: ModelChoice, run: Run) -> None:
    ended = [(member.rollout, member.spans) for member in group.rollouts]
    ended += [(rollout, await run.spans(rollout)) for rollout in group.excluded]
    for rollout, spans in ended:
        outcome = rollout.outcome if rollout.is_scorable else None
        race.record(index, group.task.id, outcome, dollars(choice, spans))


def dollars(choice: ModelChoice, spans: list[Span]) -> float:
    """What the calls of the agents that the choice is for cost, by the usage that their endpoint counted."""
    return sum(
        choice.cost(span.generation.usage)
        for span in spans
        if span.generation is not None and span.generation.usage is not None and matches(span.agent, choice.agents)
    )


def _metrics(race: Race, labels: list[str]) -> dict[str, float]:
    metrics = {"remaining": float(len(race.remaining)), "spent": race.spent}
    for index, label in enumerate(labels):
        metrics[f"reward/{label}"] = race.reward(index)
        metrics[f"cost/{label}"] = race.cost(index)
        metrics[f"win_rate/{label}"] = race.win_rate(index)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _labels(choices: list[ModelChoice]) -> list[str]:
    count = Counter(choice.model for choice in choices)
    return [
        choice.model if count[choice.model] == 1 else f"{choice.model} at {choice.base_url or 'its own endpoint'}"
        for choice in choices
    ]


def _key(candidate: Candidate) -> tuple[str, str | None]:
    return candidate.model, candidate.base_url
