"""Failures of a run counted: how often, of how many tries, by what, and over time. Pure functions over the counts of a
store (`agentlightning.store.tries`), which say what a try is.

A share is failed / tried, with a 95 % interval: Wilson, "Probable inference, the law of succession, and statistical
inference", JASA 22 (1927), which holds also where few were tried and none or all failed.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from agentlightning.records import Fault, Record
from agentlightning.store.base import Store
from agentlightning.store.tries import FailureExample, TryCount, TryKind

K = TypeVar("K")

By = Literal["type", "agent", "tool", "model"]
Z95 = 1.959964
"""The normal distribution's 97.5 % quantile."""
MAX_BUCKETS = 24
BUCKET_WIDTHS = (1, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
"""Seconds: of these one is taken that cuts the time in `MAX_BUCKETS` at most."""


class FailureShare(Record, kw_only=True):
    """How many of the tries of one kind failed.

    By ``type``: ``type`` and ``fault`` say which failures, out of all tries of the ``kind``. Else: ``name`` is the
    agent, the tool or the model, and ``types`` says which failures those were. ``share`` is failed / tried, ``low`` and
    ``high`` its 95 % interval. ``survived`` were steps of rollouts that succeeded all the same.
    """

    kind: TryKind
    name: str | None = None
    type: str | None = None
    fault: Fault | None = None
    failed: int
    tried: int
    share: float
    low: float
    high: float
    survived: int
    types: dict[str, int] = {}
    example: FailureExample | None = None


class FailureBucket(Record, kw_only=True):
    """What ended from ``begin`` on, in seconds since the epoch, until the next bucket begins."""

    begin: float
    rollouts: int = 0
    rollouts_failed: int = 0
    steps: int = 0
    steps_failed: int = 0


class FailureReport(Record, kw_only=True):
    """The failures of a run; ``steps`` are calls of models and tools, retrievals and hand-offs.

    ``since`` is in seconds since the epoch; None: from its beginning. ``bucket`` is how many seconds each of
    ``over_time`` is wide; None where that was not asked for.
    """

    run_id: str
    by: By
    since: float | None = None
    rollouts: int
    rollouts_failed: int
    steps: int
    steps_failed: int
    shares: list[FailureShare]
    bucket: float | None = None
    over_time: list[FailureBucket] = []


async def failure_report(
    store: Store, run_id: str, *, by: By = "type", since: float | None = None, over_time: bool = False
) -> FailureReport:
    """The failures of a run, as the store has them now. Raises `StoreError`."""
    counts = await store.tries(run_id, since=since)
    bucket = None
    buckets: list[FailureBucket] = []
    if over_time:
        run = await store.run(run_id)
        begin = max(since or 0.0, run.created_at if run is not None else 0.0)
        bucket = bucket_width((run.ended_at if run is not None and run.ended_at else time.time()) - begin)
        buckets = failure_buckets(await store.tries(run_id, since=since, bucket=bucket), bucket)
    rollouts = [count for count in counts if count.kind == "rollout"]
    steps = [count for count in counts if is_step(count)]
    return FailureReport(
        run_id=run_id,
        by=by,
        since=since,
        rollouts=_tried(rollouts),
        rollouts_failed=_failed(rollouts),
        steps=_tried(steps),
        steps_failed=_failed(steps),
        shares=failure_shares(counts, by),
        bucket=bucket,
        over_time=buckets,
    )


def failure_shares(counts: Iterable[TryCount], by: By = "type") -> list[FailureShare]:
    """What failed, by type of failure, or by agent, tool or model: rollouts first, then the most frequent. What did not
    fail is left out."""
    counts = list(counts)
    kinds = {"type": None, "agent": None, "tool": "tool", "model": "llm"}
    wanted = [count for count in counts if kinds[by] in (None, count.kind)]
    shares = _by_type(wanted) if by == "type" else _by_name(wanted, by)
    return sorted(
        shares,
        key=lambda it: (it.kind != "rollout", -it.failed, -it.share, it.kind, it.name or "", it.type or ""),
    )


def _by_type(counts: Sequence[TryCount]) -> list[FailureShare]:
    tried = _sums(counts, lambda count: count.kind)
    groups = _groups((count for count in counts if count.type is not None), lambda it: (it.kind, it.type, it.fault))
    return [_share(group, tried[group[0].kind], type=group[0].type, fault=group[0].fault) for group in groups.values()]


def _by_name(counts: Sequence[TryCount], by: By) -> list[FailureShare]:
    def key(count: TryCount) -> tuple[str, str | None]:
        return count.kind, count.agent if by == "agent" else count.used

    counts = [count for count in counts if count.kind != "rollout"]
    tried = _sums(counts, key)
    groups = _groups((count for count in counts if count.type is not None), key)
    return [
        _share(group, tried[named], name=named[1] or "–", types=dict(_sums(group, lambda it: it.type or "")))
        for named, group in groups.items()
    ]


def _share(group: Sequence[TryCount], tried: int, **more: object) -> FailureShare:
    failed = sum(count.count for count in group)
    low, high = wilson_interval(failed, tried)
    examples = [count.example for count in group if count.example is not None]
    return FailureShare(
        kind=group[0].kind,
        failed=failed,
        tried=tried,
        share=failed / tried,
        low=low,
        high=high,
        survived=sum(count.survived for count in group),
        example=max(examples, key=lambda example: example.at, default=None),
        **more,  # type: ignore[arg-type]
    )


def is_step(count: TryCount) -> bool:
    """Whether it counts as a step where steps are summed up: an agent's turn is made of others, and fails with them."""
    return count.kind not in ("rollout", "agent")


def failure_buckets(counts: Iterable[TryCount], bucket: float) -> list[FailureBucket]:
    """The counts of buckets of time, those between in which nothing ended too."""
    by_begin: dict[float, FailureBucket] = {}
    for count in counts:
        found = by_begin.setdefault(count.begin, FailureBucket(begin=count.begin))
        failed = count.count if count.type is not None else 0
        if count.kind == "rollout":
            found.rollouts += count.count
            found.rollouts_failed += failed
        elif is_step(count):
            found.steps += count.count
            found.steps_failed += failed
    if not by_begin:
        return []
    first, last = round(min(by_begin) / bucket), round(max(by_begin) / bucket)
    begins = {number * bucket for number in range(max(first, last - 10 * MAX_BUCKETS), last + 1)}
    return [by_begin.get(begin, FailureBucket(begin=begin)) for begin in sorted(begins.union(by_begin))]


def bucket_width(seconds: float) -> float:
    """A width that cuts so many seconds into `MAX_BUCKETS` buckets at most, and that people think in."""
    return float(next((width for width in BUCKET_WIDTHS if seconds <= width * (MAX_BUCKETS - 1)), BUCKET_WIDTHS[-1]))


def wilson_interval(failed: int, tried: int) -> tuple[float, float]:
    """The 95 % score interval of a share. Raises `ValueError` unless 0 ≤ failed ≤ tried and something was tried."""
    if not 0 <= failed <= tried or tried == 0:
        raise ValueError(f"expected 0 ≤ failed ≤ tried and 1 ≤ tried, got {failed} of {tried}")
    share, extra = failed / tried, Z95**2 / tried
    middle = (share + extra / 2) / (1 + extra)
    half = Z95 / (1 + extra) * math.sqrt(share * (1 - share) / tried + extra / (4 * tried))
    low = 0.0 if failed == 0 else max(0.0, middle - half)
    high = 1.0 if failed == tried else min(1.0, middle + half)
    return low, high


def _tried(counts: Iterable[TryCount]) -> int:
    return sum(count.count for count in counts)


def _failed(counts: Iterable[TryCount]) -> int:
    return sum(count.count for count in counts if count.type is not None)


def _sums(counts: Iterable[TryCount], key: Callable[[TryCount], K]) -> Counter[K]:
    sums: Counter[K] = Counter()
    for count in counts:
        sums[key(count)] += count.count
    return sums


def _groups(counts: Iterable[TryCount], key: Callable[[TryCount], K]) -> dict[K, list[TryCount]]:
    groups: dict[K, list[TryCount]] = {}
    for count in counts:
        groups.setdefault(key(count), []).append(count)
    return groups
