"""Which lever is shown to be better than nothing learned, which of those is worth it, and why. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from agentlightning.algorithm import Evaluation
from agentlightning.diagnostics import ENOUGH_TASKS
from agentlightning.formatting import format_duration, format_number, format_p
from agentlightning.levers.accounts import Account
from agentlightning.records import Record
from agentlightning.report import Comparison, compare, on_shared_tasks


class Row(Record, kw_only=True):
    """One lever: what its run came to against the baseline, and what it cost.

    ``comparison`` is None where ``reason`` says why nothing could be compared. ``p`` is that of the comparison after
    Holm's correction for all levers. ``cheaper`` says, of one that is not better, by how much it is shown to be cheaper
    to use and not worse.
    """

    name: str
    algorithm: str
    run_id: str | None = None
    comparison: Comparison | None = None
    p: float | None = None
    reason: str | None = None
    cheaper: str | None = None
    account: Account | None = None

    def is_better(self, alpha: float) -> bool:
        """Whether it is shown to be better than nothing learned."""
        return self.p is not None and self.p <= alpha and self.comparison is not None and self.comparison.difference > 0


class Recommendation(Record, kw_only=True):
    """The ``lever`` that is worth it, or None, and why. ``better`` are those shown to be better than nothing learned,
    the best first; ``tied`` those of them that are not shown to differ from the best."""

    lever: str | None
    reason: str
    better: list[str] = []
    tied: list[str] = []


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: those at most alpha are wrong together with a probability of at most
    alpha (Holm 1979, "A simple sequentially rejective multiple test procedure")."""
    adjusted, most = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        most = max(most, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = most
    return adjusted


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with their p-values after Holm's correction."""
    compared = [(place, row.comparison.p) for place, row in enumerate(rows) if row.comparison is not None]
    ps = dict(zip((place for place, _ in compared), holm([p for _, p in compared]), strict=True))
    return [replace(row, p=ps.get(place)) for place, row in enumerate(rows)]


def recommend(rows: Sequence[Row], evaluations: Mapping[str, Evaluation], *, alpha: float) -> Recommendation:
    """The cheapest to learn of the levers that are shown to be better than nothing learned and are not shown to differ
    from the best of these; where there is none, one that is shown to be cheaper to use and not worse; else none.

    ``rows`` are `corrected`, ``evaluations`` the last one of each by name. The others are tested against the best on
    the same tasks, with Holm's correction among them.
    """
    compared = [row for row in rows if row.comparison is not None]
    if not compared:
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows)
        return Recommendation(lever=None, reason=f"No lever came to a result that could be compared: {reasons}")
    better = sorted((row for row in compared if row.is_better(alpha)), key=lambda row: -_after(row))
    if not better:
        return _without_a_better_one(compared)
    best = better[0]
    others = [(row, against) for row in better[1:] if (against := _against(evaluations, row, best)) is not None]
    ps = dict(zip((row.name for row, _ in others), holm([against.p for _, against in others]), strict=True))
    tied = [best, *(row for row in better[1:] if ps.get(row.name, 1.0) > alpha)]
    chosen, costs = cheapest(tied)
    return Recommendation(
        lever=chosen.name,
        reason=_why(chosen, best, better, tied, costs, ps, len(compared)),
        better=[row.name for row in better],
        tied=[row.name for row in tied] if len(tied) > 1 else [],
    )


def cheapest(rows: Sequence[Row]) -> tuple[Row, dict[str, str]]:
    """The row that cost least to learn, and what each cost, in words: dollars where all are known and any is above 0,
    else the time that it took."""
    costs = {row.name: row.account for row in rows if row.account is not None}
    priced = len(costs) == len(rows) and not any(one.learning.unpriced for one in costs.values())
    if priced and any(one.learning.dollars for one in costs.values()):
        by_dollars = min(rows, key=lambda row: costs[row.name].learning.dollars)
        return by_dollars, {name: f"${one.learning.dollars:.3g}" for name, one in costs.items()}
    by_seconds = min(rows, key=lambda row: costs[row.name].seconds if row.name in costs else float("inf"))
    return by_seconds, {name: format_duration(one.seconds) for name, one in costs.items()}


def described(row: Row) -> str:
    """``0.210 → 0.548 on 100 held-out tasks (+0.338, 95 % interval +0.240 … +0.430, p 1e-09)``."""
    it = row.comparison
    if it is None or row.p is None:
        return row.reason or "not compared"
    interval = "" if it.low is None or it.high is None else f", 95 % interval {it.low:+.3f} … {it.high:+.3f}"
    return (
        f"{format_number(it.before)} → {format_number(it.after)} on {it.n} held-out tasks "
        f"({it.difference:+.3f}{interval}, p {format_p(row.p)})"
    )


def _why(
    chosen: Row,
    best: Row,
    better: Sequence[Row],
    tied: Sequence[Row],
    costs: Mapping[str, str],
    ps: Mapping[str, float],
    tested: int,
) -> str:
    correction = f"; p after Holm's correction for {tested} levers" if tested > 1 else ""
    first = f"{chosen.name}: {described(chosen)}{correction}."
    few = _few(chosen)
    if len(tied) > 1:
        names = ", ".join(f"{row.name} ({_after(row):.3f}, {costs.get(row.name, 'cost unknown')})" for row in tied)
        return f"{first} A tie at the top: {names} are not shown to differ; {chosen.name} cost least to learn.{few}"
    if len(better) > 1:
        names = ", ".join(f"{row.name} (p {format_p(ps[row.name])})" for row in better[1:])
        return f"{first} It is shown to gain more than the others that gained: {names}.{few}"
    rest = "" if tested == 1 else " No other lever is shown to be better than the agent as it is."
    return f"{first}{rest}{few}"


def _without_a_better_one(compared: Sequence[Row]) -> Recommendation:
    most = max(compared, key=lambda row: row.comparison.difference if row.comparison is not None else 0.0)
    highs = [row.comparison.high for row in compared if row.comparison is not None and row.comparison.high is not None]
    cheaper = [row for row in compared if row.cheaper is not None]
    if cheaper:
        row = cheaper[0]
        return Recommendation(
            lever=row.name,
            reason=f"{row.name}: no lever is shown to be better than the agent as it is, and this one is "
            f"{row.cheaper}.",
        )
    bound = f" The intervals end at {max(highs):+.3f}: that much, at most, was overlooked." if highs else ""
    return Recommendation(
        lever=None,
        reason="Not worth it: no lever is shown to be better than the agent as it is. The most is "
        f"{most.name}, {described(most)}.{bound}{_few(most)}",
    )


def _few(row: Row) -> str:
    count = 0 if row.comparison is None else row.comparison.n
    if count >= ENOUGH_TASKS:
        return ""
    return f" Only {count} held-out tasks were compared: hold out {ENOUGH_TASKS} or more to be told anything by this."


def _after(row: Row) -> float:
    return row.comparison.after if row.comparison is not None else 0.0


def _against(evaluations: Mapping[str, Evaluation], row: Row, best: Row) -> Comparison | None:
    return compare(*on_shared_tasks(evaluations[row.name], evaluations[best.name]))
