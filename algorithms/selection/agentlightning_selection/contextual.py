"""A model for each rollout, by what its user says first: nearest neighbours, and LinUCB."""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agentlightning.checkpoints import write_whole
from agentlightning.errors import AlgorithmError
from agentlightning.model_routing import digest_of_folder
from agentlightning.records import ModelRouter
from agentlightning_selection.config import ContextualConfig
from agentlightning_selection.contest import RESOURCE, Contest, metrics_of
from agentlightning_selection.features import Features, features_of, resolved
from agentlightning_selection.front import Point
from agentlightning_selection.linucb import LinUCB
from agentlightning_selection.neighbours import Chosen, Neighbours, cross_validated
from agentlightning_selection.paired import p_greater
from agentlightning_selection.pricing import price_under, prices, route
from agentlightning_selection.router import Scaling, Settings, with_intercept, write_linucb, write_nearest
from agentlightning_selection.table import Table, alone, mean_known, points_of

ROUTER = "router"
"""The folder, in the run's, of what was learned."""
KEPT_FEATURES = "features"
PLUGIN = "contextual"
"""The name under which the router is registered."""


async def learn_nearest(contest: Contest, config: ContextualConfig) -> None:
    """Runs every candidate on the training tasks, learns from the nearest of them, and publishes a router; or one
    model, where routing is not shown to be better than it.

    The number of neighbours and the temperature are chosen by cross-validation, and the price of a unit of outcome on
    what it predicted (`agentlightning_selection.neighbours`, `agentlightning_selection.pricing`).
    """
    run, models = contest.run, len(contest.labels)
    features = features_of(resolved(config.features))
    most = len(run.tasks) if config.budget is None else min(config.budget // models, len(run.tasks))
    size = min(config.batch, most)
    batch, rounds, table = run.batches(size), math.ceil(most / size), Table(models)

    await contest.begin()
    for step in range(1, rounds + 1):
        tasks = batch(step)[: most - (step - 1) * size]
        for place in contest.there:
            for trial in await contest.try_one(place, tasks, step=step):
                table.add(place, trial)
        run.log(_metrics(table, contest), step=step)
        run.progress(step=step, steps=rounds)

    allowed = contest.there
    if len(table.ids) < config.folds:
        raise AlgorithmError(_too_few(table, config))
    texts, given = table.arrays()
    outcomes, costs, _ = given
    run.phase("features of the tasks")
    vectors = await asyncio.to_thread(_features_kept, features, texts, run.directory)
    scaling = Scaling.of(vectors, is_embedding=features.is_embedding)
    run.phase("cross-validation")
    chosen = await asyncio.to_thread(
        cross_validated,
        scaling(vectors),
        outcomes,
        costs,
        counts=config.neighbours,
        temperatures=config.temperatures,
        folds=config.folds,
        rng=np.random.default_rng(run.seed),
    )
    run.result("neighbours", f"{chosen.count}, temperature {chosen.temperature:g}, squared error {chosen.error:.4g}")
    price = _price(chosen, costs, allowed, config)
    swept = prices(chosen.outcomes[:, allowed], chosen.costs[:, allowed])
    fronts = {"cross-validated": points_of(contest.labels, (chosen.outcomes, chosen.costs), given, allowed, swept)}
    neighbours = Neighbours(scaling(vectors), outcomes, costs, count=chosen.count, temperature=chosen.temperature)
    settings = Settings(
        learner="nearest",
        features=features.name,
        price=None if math.isinf(price) else price,
        allowed=allowed,
        count=chosen.count,
        temperature=chosen.temperature,
    )
    folder = run.directory / ROUTER
    write_nearest(folder, settings, neighbours, scaling)
    run.result("quality price", "without limit" if math.isinf(price) else f"{price:.4g} dollars a unit of outcome")
    if config.compare_held_out:
        fronts["held out"] = await _held_out(contest, neighbours, scaling, features, allowed, swept, step=rounds)
    contest.show_front(fronts)
    verdict = _verdict(contest, chosen, outcomes, costs, allowed, price, config)
    if verdict.tie is not None:
        run.result("tie", verdict.tie)
    if verdict.alone is not None:
        await contest.finish(verdict.alone, step=rounds)
        return
    await _publish(contest, _router(contest, folder, models), step=rounds)


async def learn_linucb(contest: Contest, config: ContextualConfig) -> None:
    """Lets the router choose a model for each training task, learns from what that gave, and publishes it, without its
    wish to explore.

    A step is a batch of rollouts with one version of the router, which its calls go through as they will in production.
    """
    run, models = contest.run, len(contest.labels)
    features = features_of(resolved(config.features))
    budget = len(run.tasks) if config.budget is None else config.budget
    batch, table, folder = run.batches(config.batch), Table(models), run.directory / ROUTER

    await contest.begin()
    probe = await asyncio.to_thread(features, [str(run.tasks[0].input)])
    linear = LinUCB(models, probe.shape[1] + 1, alpha=config.alpha, regularisation=config.regularisation)
    step = 0
    taken = np.zeros(models)
    while contest.rollouts < budget:
        step += 1
        tasks = batch(step)[: budget - contest.rollouts]
        router = _write_linucb(contest, config, folder, linear, _mean_costs(table, models), config.alpha, step + models)
        for trial in await contest.collect(router, tasks, step=step, key=f"{step}"):
            if trial.choice not in contest.labels:
                continue
            place = contest.labels.index(trial.choice)
            contest.note(place, trial)
            table.add(place, trial)
            taken[place] += 1
            if trial.outcome is not None:
                vector = (await asyncio.to_thread(features, [trial.text]))[0]
                linear.update(place, with_intercept(vector), trial.outcome)
        shares = metrics_of(contest.labels, share=[float(count) for count in taken / max(taken.sum(), 1)])
        run.log({**_metrics(table, contest), **shares}, step=step)
        run.progress(step=contest.rollouts, steps=budget)
    if not table.ids:
        raise AlgorithmError(_too_few(table, config))
    router = _write_linucb(contest, config, folder, linear, _mean_costs(table, models), 0.0, step + models + 1)
    contest.show_front({"those that each was chosen for": alone(contest.labels, table.arrays()[1])})
    await _publish(contest, router, step=step)


def _write_linucb(
    contest: Contest,
    config: ContextualConfig,
    folder: Path,
    linear: LinUCB,
    costs: np.ndarray,
    alpha: float,
    version: int,
) -> ModelRouter:
    settings = Settings(
        learner="linucb",
        features=resolved(config.features),
        price=config.quality_price,
        allowed=contest.there,
        alpha=alpha,
    )
    write_linucb(folder, settings, linear, costs)
    return _router(contest, folder, version)


def _router(contest: Contest, folder: Path, version: int) -> ModelRouter:
    return ModelRouter(
        name=RESOURCE,
        version=version,
        agents=contest.agents,
        choices=contest.named,
        router=PLUGIN,
        path=str(folder.resolve()),
        learned=digest_of_folder(folder),
    )


async def _publish(contest: Contest, router: ModelRouter, *, step: int) -> None:
    await contest.run.publish(router)
    evaluation = await contest.run.evaluate(step=step)
    trials = [contest.trial(one, await contest.run.spans(one), router) for one in evaluation.rollouts]
    if trials:
        shares = Counter(trial.choice or "no call" for trial in trials)
        shown = ", ".join(f"{label} {count / len(trials):.0%}" for label, count in shares.most_common())
        mean = sum(trial.dollars for trial in trials) / len(trials)
        contest.run.result("held-out choices", f"{shown}; {mean:.4g} dollars a rollout")
    contest.run.result("model", f"chosen for each rollout, of {', '.join(contest.labels)}")


async def _held_out(
    contest: Contest,
    neighbours: Neighbours,
    scaling: Scaling,
    features: Features,
    allowed: list[int],
    swept: Sequence[float],
    *,
    step: int,
) -> list[Point]:
    """The front on the held-out tasks, of which nothing was learned: every candidate runs on them."""
    run, table = contest.run, Table(len(contest.labels))
    for place in allowed:
        evaluation = await run.evaluate(
            step=step, variant=contest.labels[place], resources=[contest.choices[place]], purpose="validate"
        )
        for rollout in evaluation.rollouts:
            table.add(place, contest.trial(rollout, await run.spans(rollout), contest.choices[place]))
    if not table.ids:
        return []
    texts, given = table.arrays()
    vectors = await asyncio.to_thread(features, texts)
    predicted = await asyncio.to_thread(neighbours.predict, scaling(vectors))
    return points_of(contest.labels, predicted, given, allowed, swept)


def _price(chosen: Chosen, costs: np.ndarray, allowed: list[int], config: ContextualConfig) -> float:
    """Dollars for a unit of outcome. Raises `AlgorithmError` where no choice keeps to the cost limit."""
    if config.cost_limit is None:
        return math.inf if config.quality_price is None else config.quality_price
    found = price_under(chosen.outcomes[:, allowed], chosen.costs[:, allowed], costs[:, allowed], config.cost_limit)
    if found is None:
        least = float(np.nanmean(costs[:, allowed], axis=0).min())
        raise AlgorithmError(
            f"algorithm.cost_limit: {config.cost_limit:g} dollars a rollout, and even the cheapest candidate costs "
            f"{least:.4g}: raise it, or add a cheaper one"
        )
    return found


@dataclass(frozen=True)
class _Verdict:
    """The one model to publish, None for the router; and that they tie, where they do."""

    alone: int | None
    tie: str | None = None


def _verdict(
    contest: Contest,
    chosen: Chosen,
    outcomes: np.ndarray,
    costs: np.ndarray,
    allowed: list[int],
    price: float,
    config: ContextualConfig,
) -> _Verdict:
    """Whether routing is worth it: outcome − dollars / price of the router, as cross-validated, against the best single
    model's, on the same tasks. Where neither is shown to be better, the cheaper of both is taken."""
    values = outcomes - costs / price if price > 0 else -costs
    best = max(allowed, key=lambda place: mean_known(values[:, place]))
    rows = np.arange(len(values))
    routed = np.array(allowed)[route(chosen.outcomes[:, allowed], chosen.costs[:, allowed], price)]
    differences = values[rows, routed] - values[:, best]
    differences = differences[np.isfinite(differences)]
    spread = float(np.nanmax(values) - np.nanmin(values))
    level = 1 - config.confidence
    if (p := p_greater(differences, 0.0, spread)) < level:
        return _Verdict(None)
    label = contest.labels[best]
    if p_greater(-differences, 0.0, spread) < level:
        contest.run.result("routing", f"{label} for all is better, by {-differences.mean():.3g}")
        return _Verdict(best)
    routed_cost, alone_cost = float(np.nanmean(costs[rows, routed])), float(np.nanmean(costs[:, best]))
    tie = (
        f"routing and {label} for all tie ({differences.mean():+.3g} on {len(differences)} tasks, p = {p:.2g}). "
        f"Routing costs {routed_cost:.3g} dollars a rollout, {label} {alone_cost:.3g}"
    )
    return _Verdict(None if routed_cost < alone_cost else best, tie)


def _mean_costs(table: Table, models: int) -> np.ndarray:
    """Mean dollars of each model (M,); 0 before its first rollout, which it gets the sooner."""
    if not table.ids:
        return np.zeros(models)
    costs = table.arrays()[1][1]
    return np.array([0.0 if math.isnan(mean := mean_known(costs[:, place])) else mean for place in range(models)])


def _features_kept(features: Features, texts: Sequence[str], directory: Path) -> np.ndarray:
    """Features (N, D) of texts, from the run's folder where a run that goes on has computed them before."""
    kept = directory / KEPT_FEATURES
    digest = hashlib.blake2b("\x1f".join([features.name, *texts]).encode(errors="replace"), digest_size=8).hexdigest()
    path = kept / f"{digest}.npy"
    if path.exists():
        found: np.ndarray = np.load(path)
        return found
    vectors = features(texts)
    kept.mkdir(parents=True, exist_ok=True)
    write_whole(path, _npy(vectors))
    return vectors


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _too_few(table: Table, config: ContextualConfig) -> str:
    return (
        f"{len(table.ids)} tasks could be learned from, and the {config.learner} learner needs "
        f"{config.folds if config.learner == 'nearest' else 1}: a rollout counts that was scored, and in which an "
        "agent whose model is chosen called it with a user's message"
    )


def _metrics(table: Table, contest: Contest) -> dict[str, float]:
    if not table.ids:
        return {}
    _, given = table.arrays()
    means = [[mean_known(array[:, place]) for place in range(len(contest.labels))] for array in given]
    return metrics_of(contest.labels, reward=means[0], cost=means[1], seconds=means[2])
