"""One model for all tasks: by racing, and by successive halving."""

from __future__ import annotations

import math

from agentlightning.errors import AlgorithmError
from agentlightning_selection.config import HalvingConfig, RacingConfig
from agentlightning_selection.contest import Contest, Trial, metrics_of
from agentlightning_selection.front import Point
from agentlightning_selection.halving import kept, tasks_of_round
from agentlightning_selection.race import Race
from agentlightning_selection.results import Results


async def race(contest: Contest, config: RacingConfig) -> None:
    """Races the candidates on the same tasks, round by round, drops those that cannot win, and publishes the winner.

    How it decides: `agentlightning_selection.race`. A round is a step, and each candidate's collection in it has a key
    of its own, so a race that was cut off replays what it has and goes on.
    """
    run, labels = contest.run, contest.labels
    size = min(config.batch, len(run.tasks))
    rounds = math.ceil(len(run.tasks) / size)
    racing = Race(len(labels), rounds, config)
    batch = run.batches(size)

    await contest.begin()
    step = 0
    while step < rounds and not racing.decided and not _is_used_up(racing, contest, config):
        step += 1
        tasks = batch(step)[: len(run.tasks) - (step - 1) * size]
        if config.budget is not None:
            tasks = tasks[: (config.budget - contest.rollouts) // len(racing.remaining)]
        for place in list(racing.remaining):
            record(racing, place, await contest.try_one(place, tasks, step=step))
        racing.drop(contest.gone)
        for place, reason in racing.eliminate().items():
            contest.out(place, reason, after=f" after round {step}")
        run.log({"remaining": float(len(racing.remaining)), **metrics(racing, contest)}, step=step)
        run.progress(step=step, steps=rounds)
    await _finish(contest, racing, racing.remaining, step=step)


async def halve(contest: Contest, config: HalvingConfig) -> None:
    """Divides a budget evenly over rounds, and keeps the better part of the candidates after each.

    How it divides: `agentlightning_selection.halving`. All that are left run on the same tasks, each task once.
    """
    run, labels = contest.run, contest.labels
    results, remaining = Results(len(labels), config), list(range(len(labels)))
    order = run.batches(len(run.tasks))(1)

    await contest.begin()
    finalists, step, used = list(remaining), 0, 0
    while len(remaining) > 1 and used < len(order):
        step += 1
        count = tasks_of_round(len(remaining), config.budget - contest.rollouts, config.eta)
        tasks = order[used : used + count]
        if not tasks:
            break
        used += len(tasks)
        for start in range(0, len(tasks), config.batch):
            part = tasks[start : start + config.batch]
            for place in [one for one in remaining if one not in contest.gone]:
                trials = await contest.collect(contest.choices[place], part, step=step, key=f"{step}/{place}/{start}")
                for trial in trials:
                    contest.note(place, trial)
                record(results, place, trials)
        finalists = [one for one in remaining if one not in contest.gone]
        remaining = results.ranked(finalists)[: kept(len(remaining), config.eta)]
        for place in finalists:
            if place not in remaining:
                done = f"{results.reward(place):.3g} on {results.runs(place)} tasks"
                reason = f"{done}, not among the best {len(remaining)}"
                contest.out(place, reason, after=f" after round {step}")
        run.log({"remaining": float(len(remaining)), **metrics(results, contest)}, step=step)
        run.progress(step=contest.rollouts, steps=config.budget)
    if used == len(order) and len(remaining) > 1:
        run.stopped(step=step, reason=f"every task was used; {config.budget - contest.rollouts} rollouts are left")
    await _finish(contest, results, finalists, step=step)


def record(results: Results, place: int, trials: list[Trial]) -> None:
    """Takes what a candidate's rollouts gave."""
    for trial in trials:
        results.record(place, trial.task_id, trial.outcome, trial.dollars, trial.seconds)


def metrics(results: Results, contest: Contest) -> dict[str, float]:
    """What a step says of each candidate."""
    places = range(len(contest.labels))
    return {
        "spent": results.spent,
        **metrics_of(
            contest.labels,
            reward=[results.reward(place) for place in places],
            cost=[results.cost(place) for place in places],
            seconds=[results.seconds(place) for place in places],
            win_rate=[results.win_rate(place) for place in places],
        ),
    }


async def _finish(contest: Contest, results: Results, finalists: list[int], *, step: int) -> None:
    verdict = results.verdict(finalists, contest.labels)
    if verdict is None:
        raise AlgorithmError(
            f"no rollout of any candidate could be scored, of {contest.rollouts}; `agl failures {contest.run.id}` says "
            "why, and `agl check` tries the reward on one"
        )
    contest.show_front({"training": points_of(results, contest)})
    await contest.finish(verdict.winner, step=step, tie=verdict.tie)


def points_of(results: Results, contest: Contest) -> list[Point]:
    """Each candidate by what it has done."""
    return [
        Point(label, results.reward(place), results.cost(place), results.seconds(place), results.runs(place))
        for place, label in enumerate(contest.labels)
    ]


def _is_used_up(racing: Race, contest: Contest, config: RacingConfig) -> bool:
    if config.max_dollars is not None and racing.spent >= config.max_dollars:
        return True
    return config.budget is not None and config.budget - contest.rollouts < len(racing.remaining)
