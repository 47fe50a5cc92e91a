"""What is in production: which resources a deployed agent was given when, why, and what was before.

The record, and how the embedded store keeps it. What follows from what is `agentlightning.promotion`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from agentlightning.errors import StoreError
from agentlightning.records import AnyResource, Policy, Record, decode, encode, new_id
from agentlightning.redaction import scrub

PromotionStatus = Literal["canary", "promoted", "rolled_back", "superseded"]


class Promotion(Record, kw_only=True):
    """The resources of a run, given to the deployed agent ``target`` (the id of its live run).

    ``resources`` are copies, so that they outlive the run's. A policy among them is as it was ``published``, but for
    where it is served and how it is sampled, which is the agent's own business; without a ``base_url`` it is only
    served by ``agl serve --target``. ``published`` are the digests that the run knew them by.

    A ``canary`` has the ``share`` of the agent's runs, until it is found worse, with an error of ``alpha``, or better,
    or has had ``enough`` runs without being found worse; outcomes are thought to be in ``bounds``. ``previous`` is the
    id of what was in production before, None for the agent's own. ``reason`` says why it stands as it does, with the
    numbers in ``evidence``; one that is ``forced`` was never shown to be better.

    ``revision`` is given by the store: the number of the target's change with which it was written last.
    """

    id: str = msgspec.field(default_factory=new_id)
    target: str
    run_id: str
    resources: list[AnyResource] = []
    published: list[str] = []
    status: PromotionStatus = "promoted"
    share: float = 1.0
    alpha: float = 0.05
    enough: int = 500
    bounds: tuple[float, float] = (0.0, 1.0)
    previous: str | None = None
    forced: bool = False
    reason: str = ""
    evidence: dict[str, Any] = {}
    created_at: float = msgspec.field(default_factory=time.time)
    decided_at: float | None = None
    revision: int = 0

    @property
    def applied(self) -> list[AnyResource]:
        """Those that reach a deployed agent's calls: all but policies that nobody has said where they are served."""
        return [one for one in self.resources if not isinstance(one, Policy) or one.base_url]

    @property
    def digests(self) -> dict[str, str]:
        """What a rollout's ``resources`` say of one that ran with it."""
        return {resource.name: resource.digest for resource in self.applied}

    def __str__(self) -> str:
        """``support: run grpo-1 is promoted: 0.61 after 0.48 …``."""
        status = f"a canary of {self.share:.0%}" if self.status == "canary" else self.status.replace("_", " ")
        return f"{self.target}: run {self.run_id} is {status}{f': {self.reason}' if self.reason else ''}"


def revision_of(promotions: Sequence[Promotion]) -> int:
    """The number of the last change of a target whose promotions these are, all of them; 0 where there are none."""
    return max((one.revision for one in promotions), default=0)


SELECT = "SELECT record, revision FROM promotions WHERE ?1 IS NULL OR target = ?1 ORDER BY seq"


def read(rows: Sequence[tuple[bytes, int]]) -> list[Promotion]:
    """What `SELECT` found."""
    return [msgspec.structs.replace(decode(record, Promotion), revision=revision) for record, revision in rows]


def newer_than(revision: int) -> Callable[[Sequence[tuple[bytes, int]]], bool]:
    """Whether what `SELECT` found is of a later revision."""
    return lambda rows: max((one for _, one in rows), default=0) > revision


def put(db: sqlite3.Connection, target: str, promotions: Sequence[Promotion], revision: int) -> bool:
    """Writes what `Store.put_promotions` does. Raises `StoreError` for one of another target."""
    for promotion in promotions:
        if promotion.target != target:
            raise StoreError(f"promotion {promotion.id} is of {promotion.target}, and was to be written for {target}")
    ((now,),) = db.execute("SELECT coalesce(max(revision), 0) FROM promotions WHERE target = ?", [target])
    if now != revision:
        return False
    db.executemany(
        "INSERT INTO promotions (target, id, revision, record) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (target, id) DO UPDATE SET revision = excluded.revision, record = excluded.record",
        [(target, one.id, revision + 1, scrub(encode(one))) for one in promotions],
    )
    return True
