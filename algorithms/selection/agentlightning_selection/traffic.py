"""One candidate for each task, as traffic comes: Thompson sampling, and upper confidence bounds."""

from __future__ import annotations

import numpy as np

from agentlightning.errors import AlgorithmError
from agentlightning.records import Task
from agentlightning_selection.bandits import UCB, Bandit, Thompson
from agentlightning_selection.config import FixedConfig, ThompsonConfig, TrafficConfig, UCBConfig
from agentlightning_selection.contest import Contest, Trial, metrics_of
from agentlightning_selection.fixed import points_of
from agentlightning_selection.results import Results

ENOUGH = 30.0
"""Decisions for a candidate, discounted, before it can tie with the one that was taken most."""


async def allot(contest: Contest, config: ThompsonConfig | UCBConfig) -> None:
    """Chooses a candidate for each task, and learns from what it gave; publishes the one that was taken most.

    How it chooses: `agentlightning_selection.bandits`. A step is a batch of decisions that are made at once; its draws
    follow from the run's seed, so a run that was cut off makes the same ones again.

    ``regret`` is an estimate: what the best candidate's mean so far would have given, less what was given.
    """
    run = contest.run
    bandit = _bandit(contest, config)
    results = Results(len(contest.labels), FixedConfig(candidates=config.candidates))
    budget = len(run.tasks) if config.budget is None else config.budget
    batch, given, decisions, counted = run.batches(config.batch), 0.0, 0, 0

    await contest.begin()
    step = 0
    while contest.rollouts < budget:
        step += 1
        tasks = batch(step)[: budget - contest.rollouts]
        chosen = _decisions(bandit, contest, len(tasks), np.random.default_rng([run.seed, step]))
        trials = await _run_chosen(contest, tasks, chosen, step)
        for place, trial in zip(chosen, trials, strict=True):
            decisions += 1  # a task that comes again is another decision
            results.record(place, f"{trial.task_id}/{decisions}", trial.outcome, trial.dollars, trial.seconds)
            value = _value(trial, config)
            if value is None:
                continue
            given, counted = given + value, counted + 1
            try:
                bandit.update(place, value)
            except ValueError as error:
                raise AlgorithmError(f"task {trial.task_id}, {contest.labels[place]}: {error}") from error
        known = bandit.means[np.isfinite(bandit.means)]
        regret = {"regret": float(known.max()) * counted - given} if len(known) else {}
        run.log({"spent": results.spent, "given": given, **regret, **_metrics(bandit, results, contest)}, step=step)
        run.progress(step=contest.rollouts, steps=budget)

    contest.show_front({"those that each was chosen for": points_of(results, contest)})
    winner, tie = _verdict(bandit, results, contest, config)
    await contest.finish(winner, step=step, tie=tie)


def _bandit(contest: Contest, config: ThompsonConfig | UCBConfig) -> Bandit:
    arms = len(contest.labels)
    return Thompson(arms, config) if isinstance(config, ThompsonConfig) else UCB(arms, config)


def _decisions(bandit: Bandit, contest: Contest, count: int, rng: np.random.Generator) -> list[int]:
    pending = np.zeros(len(contest.labels))
    chosen = []
    for _ in range(count):
        place = bandit.choose(contest.there, pending, rng)
        pending[place] += 1
        chosen.append(place)
    return chosen


async def _run_chosen(contest: Contest, tasks: list[Task], chosen: list[int], step: int) -> list[Trial]:
    """The trial of each task, in order."""
    trials: dict[int, Trial] = {}
    for place in sorted(set(chosen)):
        positions = [position for position, one in enumerate(chosen) if one == place]
        tried = await contest.try_one(place, [tasks[position] for position in positions], step=step)
        trials.update(zip(positions, tried, strict=True))
    return [trials[position] for position in range(len(tasks))]


def _value(trial: Trial, config: TrafficConfig) -> float | None:
    if trial.outcome is None:
        return None
    return trial.outcome - config.cost_weight * trial.dollars - config.time_weight * (trial.seconds or 0.0)


def _verdict(bandit: Bandit, results: Results, contest: Contest, config: TrafficConfig) -> tuple[int, str | None]:
    """The candidate that was taken most (Bubeck, Munos & Stoltz 2009, "Pure exploration in multi-armed bandits
    problems"), or the cheapest of those that tie with it."""
    labels, counts, means = contest.labels, bandit.counts, bandit.means
    scored = [place for place in contest.there if results.is_scored(place)]
    if not scored:
        raise AlgorithmError(
            f"no rollout of any candidate could be scored, of {contest.rollouts}; `agl failures {contest.run.id}` says "
            "why, and `agl check` tries the reward on one"
        )
    best = max(scored, key=lambda place: (counts[place], means[place]))
    p_of = {one: bandit.p_better(best, one) for one in scored if one != best and counts[one] >= ENOUGH}
    level = (1 - config.confidence) / max(len(p_of), 1)
    tied = [one for one, p in p_of.items() if p >= level]
    if not tied:
        return best, None
    winner = min([best, *tied], key=lambda place: (results.cost(place), -means[place]))
    against = "; ".join(
        f"{labels[best]} and {labels[one]} tie ({means[best] - means[one]:+.3g} on {counts[best]:.0f} and "
        f"{counts[one]:.0f} tasks, p = {p_of[one]:.2g})"
        for one in tied
    )
    return winner, f"{against}. {labels[winner]} costs {results.cost(winner):.3g} dollars a rollout"


def _metrics(bandit: Bandit, results: Results, contest: Contest) -> dict[str, float]:
    places = range(len(contest.labels))
    total = max(sum(results.runs(place) for place in places), 1)
    return metrics_of(
        contest.labels,
        mean=[float(mean) for mean in bandit.means],
        reward=[results.reward(place) for place in places],
        cost=[results.cost(place) for place in places],
        seconds=[results.seconds(place) for place in places],
        share=[results.runs(place) / total for place in places],
    )
