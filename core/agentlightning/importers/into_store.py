"""The records of exports → a live run of a store.

What is there already stays. What an export tells of it that is new (a score that was given since, a span that was not
in the file before) is added.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from msgspec.structs import replace

from agentlightning import semconv
from agentlightning.errors import DataError, StoreError
from agentlightning.importers.base import Importer, LateRewards, NotRead, Row, Unread, digest
from agentlightning.importers.files import rows_of, sample_of
from agentlightning.online.attach import run_id
from agentlightning.plugins import plugins
from agentlightning.recorded import LIVE
from agentlightning.records import Record, Reward, Rollout, Span, decode, encode
from agentlightning.redaction import begin_redacting
from agentlightning.store.base import Recorded, RunRecord, Store

ALGORITHM = "import"
GIVEN_OUTCOME = "imported"
"""The name of the reward of rollouts that their export has no score of, where one is given."""
BATCH_ROLLOUTS = 200
BATCH_BYTES = 4 * 1024**2


class Imported(Record, kw_only=True):
    """What came of an import: rollouts that are new, that were there already, and what was added to those."""

    run_id: str
    formats: dict[str, str] = {}
    rollouts: int = 0
    spans: int = 0
    scored: int = 0
    """Of the new rollouts, those that have an outcome."""
    known: int = 0
    added_rewards: int = 0
    added_spans: int = 0
    unread: list[NotRead] = []


async def import_files(
    store: Store,
    files: Sequence[Path],
    *,
    name: str,
    format: str | None = None,
    scores: Mapping[str, float] | None = None,
    outcome: float | None = None,
) -> Imported:
    """Adds what is in exports to the live run ``name``, which is made where there is none.

    Each file is of ``format``, or of the one that knows its first records. ``scores`` names those that are rewards,
    each with its weight; others are kept as annotations. None: all are, with weight 1. ``outcome`` is the reward of
    rollouts without one.

    Raises `DataError` for a file that cannot be read or whose format is unknown, before anything is added; and
    `StoreError`.
    """
    begin_redacting()
    kinds = {file: _importer_of(file, format) for file in files}
    run = RunRecord(id=run_id(name), name=name, algorithm=ALGORITHM, status="live", created_at=time.time())
    unread = Unread()
    into = _IntoStore(store, run, scores, outcome, unread)
    await into.begin()
    for kind, group in groupby(sorted(kinds, key=lambda file: kinds[file].name), key=lambda file: kinds[file]):
        for found in kind(run.id, unread).read(_rows(group, unread)):
            await into.add(found)
    await into.flush()
    into.imported.formats = {str(file): kind.name for file, kind in kinds.items()}
    into.imported.unread = unread.counts
    return into.imported


def _rows(files: Iterator[Path], unread: Unread) -> Iterator[Row]:
    for file in files:
        yield from rows_of(file, unread)


def _importer_of(file: Path, format: str | None) -> type[Importer]:
    importers: dict[str, type[Importer]] = plugins().working("importers")
    if format is not None:
        sample_of(file)
        found: type[Importer] = plugins().find("importers", format)
        return found
    sample = sample_of(file)
    known = {name: sum(map(importer.recognizes, sample)) for name, importer in importers.items()}
    best = max(known, key=lambda name: known[name], default=None)
    if best is None or not known[best]:
        keys = ", ".join(sorted(sample[0])[:12]) if sample else "none, as they are no JSON objects"
        raise DataError(
            f"{file}: its first records are of no known format ({', '.join(sorted(known)) or 'none is installed'}); "
            f"their keys: {keys}. `agl import --format` names one"
        )
    return importers[best]


class _IntoStore:
    """Writes rollouts in batches, and what is new of those that are there."""

    def __init__(
        self, store: Store, run: RunRecord, scores: Mapping[str, float] | None, outcome: float | None, unread: Unread
    ) -> None:
        self._store, self._run, self._unread = store, run, unread
        self._scores, self._outcome = scores, outcome
        self._known: dict[str, Rollout] = {}
        self._batch: list[Recorded] = []
        self._size = 0
        self._late: list[LateRewards] = []
        self.imported = Imported(run_id=run.id)

    async def begin(self) -> None:
        there = await self._store.run(self._run.id)
        if there is None:
            return
        if there.status != LIVE:
            raise StoreError(f"run {there.id} is a run of {there.algorithm}, not a live one: import under another name")
        self._known = {rollout.id: rollout for rollout in await self._store.rollouts(there.id)}

    async def add(self, found: Recorded | LateRewards) -> None:
        if isinstance(found, LateRewards):
            self._late.append(found)
            return
        rollout, encoded = found.rollout, encode(found)
        try:
            decode(encoded, Recorded)
        except msgspec.DecodeError as error:  # a field of another type: the store would never give it back
            self._unread.add("trace", f"it cannot be kept: {error}", rollout.id)
            return
        self._choose(rollout, found.spans)
        if self._outcome is not None and rollout.outcome is None:
            rollout.rewards = [*rollout.rewards, Reward(name=GIVEN_OUTCOME, value=self._outcome)]
        if rollout.id in self._known:
            await self._write()
            await self._update(self._known[rollout.id], rollout.rewards, found.spans)
            self.imported.known += 1
            return
        self._known[rollout.id] = rollout
        self._batch.append(found)
        self._size += len(encoded)
        self.imported.rollouts += 1
        self.imported.spans += len(found.spans)
        self.imported.scored += rollout.outcome is not None
        if len(self._batch) >= BATCH_ROLLOUTS or self._size >= BATCH_BYTES:
            await self._write()

    async def flush(self) -> None:
        """Writes what waits, then the rewards of rollouts that are not in these files."""
        await self._write()
        for late in self._late:
            await self._add_late(late)
        await self._store.flush()

    async def _write(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        if batch:
            await self._store.add_recorded(self._run, batch)

    async def _add_late(self, late: LateRewards) -> None:
        rollout = self._known.get(late.rollout_id)
        if rollout is None:
            reason = "its trace is neither in these files nor in the run"
            self._unread.add("score", reason, late.where, len(late.rewards))
            return
        spans = {span.id: span for span in await self._store.spans(rollout.id, attempt=rollout.attempt)}
        scored = replace(rollout, rewards=[])
        for reward in late.rewards:
            span = spans.get(reward.span_id or "")
            if reward.span_id is not None and span is None:
                self._unread.add("score", "what it is of is not in its trace", late.where)
            elif span is not None and span.parent_id is None:
                scored.rewards.append(replace(reward, span_id=None, step=False))
            else:
                scored.rewards.append(reward)
        annotated = list(spans.values())
        self._choose(scored, annotated)
        await self._update(rollout, scored.rewards, annotated)

    async def _update(self, known: Rollout, rewards: Sequence[Reward], spans: Sequence[Span]) -> None:
        """Adds what is new to a rollout that is in the store."""
        there = {span.id for span in await self._store.spans(known.id, attempt=known.attempt)}
        new = [span for span in spans if span.id not in there]
        if new:
            self._store.add_spans([replace(span, index=len(there) + place) for place, span in enumerate(new)])
            self.imported.added_spans += len(new)
        before = {(reward.name, reward.span_id): reward for reward in known.rewards}
        news = [reward for reward in rewards if _is_news(reward, before.get((reward.name, reward.span_id)))]
        if known.outcome is not None:
            news = [reward for reward in news if reward.name != GIVEN_OUTCOME]
        given = before.get((GIVEN_OUTCOME, None))
        if given is not None and any(not reward.step for reward in news):
            news.append(replace(given, weight=0.0))  # a score has come in its place
        if news and await self._store.add_rewards(known.id, known.attempt, news):
            known.add_rewards(news)
            self.imported.added_rewards += len(news)

    def _choose(self, rollout: Rollout, spans: list[Span]) -> None:
        """Weighs the scores that are rewards, and makes annotations of the others."""
        if self._scores is None:
            return
        root = next((span.id for span in spans if span.parent_id is None), None)
        chosen: list[Reward] = []
        for reward in rollout.rewards:
            weight = self._scores.get(reward.name)
            if weight is not None:
                chosen.append(replace(reward, weight=weight))
            else:
                spans.append(_annotation(reward, rollout, reward.span_id or root, len(spans)))
        rollout.rewards = chosen


def _annotation(score: Reward, rollout: Rollout, parent: str | None, index: int) -> Span:
    """A score that is no reward."""
    about = {
        semconv.EVALUATION_NAME: score.name,
        semconv.EVALUATION_SCORE: score.value,
        semconv.EVALUATION_EXPLANATION: score.reason,
    }
    return Span(
        id=digest(rollout.id, "score", score.name, score.span_id or ""),
        rollout_id=rollout.id,
        attempt=rollout.attempt,
        parent_id=parent,
        index=index,
        kind="annotation",
        name=score.name,
        started_at=score.at,
        ended_at=score.at,
        attributes={name: value for name, value in about.items() if value is not None},
    )


def _is_news(reward: Reward, known: Reward | None) -> bool:
    """Whether a reward is not there, or was changed since; what was given later than it stays."""
    if known is None:
        return True
    same = (reward.value, reward.weight, reward.reason) == (known.value, known.weight, known.reason)
    return not same and reward.at >= known.at
