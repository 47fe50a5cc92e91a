"""A run's rollouts with what a judge and a label say of them, as the store has them or scored now."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentlightning.cli.commands.find import find_run
from agentlightning.config import RewardConfig, decode_section, parse_yaml
from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning.scoring import Scoring
from agentlightning.store.base import Store
from agentlightning_judge.agreement import Judged

PAGE = 200
"""Rollouts that are read from the store at once."""
AT_ONCE = 8
"""Groups that are judged at once."""
SECONDS = 600.0
"""How long judging a group, or computing a label, may take."""

Recorded = tuple[Rollout, list[Span]]


class Labelled(msgspec.Struct, kw_only=True):
    """The rollouts of a run that have both a score and a label, how many have not, and the judge's
    `agentlightning.records.Reward.metrics` added up."""

    run: str
    judged: list[Judged] = []
    unscored: int = 0
    unlabelled: int = 0
    metrics: dict[str, float] = {}


def made_anew(path: str | Path, reward: str) -> Scoring:
    """The reward of that name in a config file. Raises `ConfigError` where there is none."""
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    given: Any = values.get("reward") if isinstance(values, dict) else None
    entries = [
        RewardConfig(name=entry) if isinstance(entry, str) else decode_section(entry, RewardConfig, where=str(path))
        for entry in (given if isinstance(given, list) else [] if given is None else [given])
    ]
    for entry in entries:
        if entry.name.rpartition(":")[2] == reward:
            return Scoring([entry], plugins())
    there = ", ".join(entry.name for entry in entries) or "none"
    raise ConfigError(f"{path}: there is no reward {reward!r} in it; there is: {there}")


async def look(store: Store, run: str, reward: str, label: str, *, limit: int, judge: Scoring | None) -> Labelled:
    """The last ``limit`` rollouts of a run that ran to their end; scored by ``judge`` where it is given.

    Raises `PluginError` where the label is neither a reward that a rollout has nor one that is installed.
    """
    record = await find_run(store, run)
    recorded = await _last(store, record.id, limit)
    tasks = await store.tasks(record.id)
    scores = await _scores(judge, recorded, tasks, reward)
    labels = await _labels(recorded, tasks, label)
    found = Labelled(run=record.id, judged=[], metrics={})
    for (rollout, _), score, value in zip(recorded, scores, labels, strict=True):
        if score is None:
            continue
        for name, number in score.metrics.items():
            found.metrics[name] = found.metrics.get(name, 0) + number
        if score.value is None:
            found.unscored += 1
        elif value is None:
            found.unlabelled += 1
        else:
            found.judged.append(
                Judged(
                    group=rollout.group_id,
                    task=rollout.task_id,
                    score=score.value,
                    label=value,
                    alone="scores" in score.metrics,
                )
            )
    return found


async def _last(store: Store, run_id: str, limit: int) -> list[Recorded]:
    last: deque[str] = deque(maxlen=limit)
    after = None
    while page := await store.rollouts(run_id, after=after, limit=PAGE):
        last.extend(rollout.id for rollout in page if rollout.ran_to_its_end and rollout.counts)
        after = page[-1].id
    return [await store.rollout_with_spans(id) for id in last]


async def _scores(
    judge: Scoring | None, recorded: Sequence[Recorded], tasks: dict[str, Task], reward: str
) -> list[Reward | None]:
    """What each rollout was given under the judge's name, or is given now; None where that is nothing."""
    if judge is None:
        return [_named(rollout.rewards, reward) for rollout, _ in recorded]
    groups: dict[str, list[int]] = {}
    for place, (rollout, _) in enumerate(recorded):
        groups.setdefault(rollout.group_id, []).append(place)
    found: list[Reward | None] = [None] * len(recorded)
    slots = asyncio.Semaphore(AT_ONCE)

    async def score(places: list[int]) -> None:
        members, task = [recorded[place] for place in places], tasks[recorded[places[0]][0].task_id]
        async with slots:
            if judge.group_rewards:
                of_group = [spans for _, spans in members]
                scored = await judge.score_group([one for one, _ in members], task, of_group, seconds=SECONDS)
            else:
                scored = await asyncio.gather(*(judge.score(*one_of(task, one), seconds=SECONDS) for one in members))
        for place, (rewards, _) in zip(places, scored, strict=True):
            found[place] = _named(rewards, reward)

    await asyncio.gather(*(score(places) for places in groups.values()))
    return found


def one_of(task: Task, recorded: Recorded) -> tuple[Rollout, Task, list[Span]]:
    """The arguments of a reward."""
    return recorded[0], task, recorded[1]


async def _labels(recorded: Sequence[Recorded], tasks: dict[str, Task], label: str) -> list[float | None]:
    known = [_named(rollout.rewards, label) for rollout, _ in recorded]
    if any(reward is not None for reward in known):
        return [None if reward is None else reward.value for reward in known]
    scoring = Scoring([label], plugins())
    values: list[float | None] = []
    try:
        for rollout, spans in recorded:
            rewards, _ = await scoring.score(rollout, tasks[rollout.task_id], spans, seconds=SECONDS)
            given = [reward.value for reward in rewards if not reward.step]
            values.append(given[0] if len(given) == 1 else None)
    finally:
        scoring.close()
    return values


def _named(rewards: Sequence[Reward], name: str) -> Reward | None:
    return next((reward for reward in rewards if reward.name == name and not reward.step), None)
