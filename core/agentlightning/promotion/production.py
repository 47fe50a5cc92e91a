"""What a deployed agent is given: how that changes, and which of its runs get what."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec.structs import replace

from agentlightning.errors import PromotionError
from agentlightning.plugins import plugins
from agentlightning.records import AnyResource, Policy
from agentlightning.store.base import RunRecord, Store
from agentlightning.store.promotions import Promotion, revision_of

Arm = Literal["canary", "control"]
ATTEMPTS = 20
"""How often a change is tried again that somebody else came before."""

Change = Callable[[list[Promotion]], list[Promotion]]
"""From the promotions of a target, those that change."""


def in_production(promotions: Sequence[Promotion]) -> Promotion | None:
    """What the agent is given, of the promotions of one target; None where it has its own."""
    return next((one for one in reversed(promotions) if one.status == "promoted"), None)


def going_canary(promotions: Sequence[Promotion]) -> Promotion | None:
    """The canary that goes on, if any."""
    return next((one for one in promotions if one.status == "canary"), None)


def arm_of(canary: Promotion, rollout_id: str) -> Arm:
    """Which of the two a run gets: the same for the same id, whoever asks, and drawn anew for each canary."""
    digest = hashlib.blake2b(f"{canary.id}\0{rollout_id}".encode(), digest_size=8).digest()
    return "canary" if int.from_bytes(digest) < canary.share * 2.0**64 else "control"


def collection_of(canary: Promotion, arm: Arm) -> str:
    """The collection that the runs of a canary, or those that it is compared with, are recorded in."""
    return f"{arm}/{canary.id}"


def deployable(resource: AnyResource, endpoint: str | None) -> AnyResource:
    """A resource as a deployed agent is given it: a policy where it is served, ``endpoint`` (None: nobody has said),
    and sampled as the agent asks."""
    if not isinstance(resource, Policy):
        return resource
    return replace(resource, base_url=endpoint or "", api_key_env=None, sampling={})


async def promotion_of(store: Store, run: RunRecord, target: str, *, endpoint: str | None = None) -> Promotion:
    """What a run published last, to be given to ``target``. Raises `PromotionError` where that is nothing."""
    published = await store.published(run)
    if not published:
        raise PromotionError(f"run {run.id} ({run.algorithm}, {run.status}) published nothing that could be given")
    if endpoint is not None and not any(isinstance(one, Policy) for one in published):
        raise PromotionError(f"run {run.id} trained no weights: nothing of it is served at {endpoint}")
    return Promotion(
        target=target,
        run_id=run.id,
        resources=[deployable(one, endpoint) for one in published],
        published=[one.digest for one in published],
    )


async def begin(store: Store, promotion: Promotion) -> Promotion:
    """Puts a promotion into production, whole or as a canary; what is there becomes what was before.

    Raises `PromotionError` where a canary goes on, and where the canary is nothing that a call can be given.
    """
    if promotion.status == "canary" and not promotion.applied:
        raise PromotionError(
            f"run {promotion.run_id} made nothing that a deployed agent's calls can be given: say with --endpoint "
            f"where its weights are served (agl serve {promotion.run_id} serves them)"
        )
    for resource in promotion.applied:
        await store.put_resource(promotion.target, resource)

    def change(known: list[Promotion]) -> list[Promotion]:
        if any(one.id == promotion.id for one in known):
            return []
        going_on, before = going_canary(known), in_production(known)
        if going_on is not None:
            raise PromotionError(
                f"run {going_on.run_id} is a canary for {promotion.target} ({going_on.id}): wait until it is decided "
                f"(agl promoted {promotion.target}), or end it: agl rollback {promotion.target}"
            )
        added = replace(promotion, previous=before.id if before is not None else None)
        superseded = [] if before is None or promotion.status == "canary" else [_superseded(before, promotion)]
        return [added, *superseded]

    known, _ = await _changed(store, promotion.target, change)
    return _by_id(known, promotion.id)


async def conclude(
    store: Store, canary: Promotion, status: Literal["promoted", "rolled_back"], reason: str, evidence: dict[str, Any]
) -> Promotion | None:
    """Ends a canary; None where somebody else has ended it."""

    def change(known: list[Promotion]) -> list[Promotion]:
        now = _by_id(known, canary.id)
        if now.status != "canary":
            return []
        numbers = {**now.evidence, **evidence}
        ended = replace(now, status=status, reason=reason, evidence=numbers, decided_at=time.time())
        before = in_production(known)
        return [ended, *([_superseded(before, now)] if status == "promoted" and before is not None else [])]

    known, is_changed = await _changed(store, canary.target, change)
    return _by_id(known, canary.id) if is_changed else None


async def roll_back(store: Store, target: str, reason: str) -> tuple[Promotion, Promotion | None]:
    """Ends the canary of a target, else takes out what is in production and puts back what was before.

    Returns what was rolled back, and what is in production now (None: the agent's own). Raises `PromotionError` where
    there is neither.
    """
    rolled: list[str] = []

    def change(known: list[Promotion]) -> list[Promotion]:
        now = going_canary(known) or in_production(known)
        if now is None:
            raise PromotionError(f"nothing is in production for {target}: the agent has its own prompts and models")
        rolled[:] = [now.id]
        out = replace(now, status="rolled_back", reason=reason, decided_at=time.time())
        if now.status == "canary" or now.previous is None:
            return [out]
        back = _by_id(known, now.previous)
        again = f"again, as run {now.run_id} was rolled back"
        return [out, replace(back, status="promoted", reason=again, decided_at=time.time())]

    known, _ = await _changed(store, target, change)
    return _by_id(known, rolled[0]), in_production(known)


def tell(promotion: Promotion) -> None:
    """Calls the hook ``promotion_changed`` of every plugin."""
    plugins().notify("promotion_changed", promotion=promotion)


async def _changed(store: Store, target: str, change: Change) -> tuple[list[Promotion], bool]:
    """Makes a change on what is there, anew where somebody else came before; what is there then, and whether it is by
    this change."""
    for _ in range(ATTEMPTS):
        known = await store.promotions(target)
        changed = change(known)
        if not changed:
            return known, False
        if await store.put_promotions(target, changed, revision=revision_of(known)):
            return await store.promotions(target), True
    raise PromotionError(f"what is in production for {target} is being changed by somebody else: try again")


def _superseded(before: Promotion, by: Promotion) -> Promotion:
    return replace(before, status="superseded", reason=f"by run {by.run_id}", decided_at=time.time())


def _by_id(promotions: Sequence[Promotion], id: str) -> Promotion:
    found = next((one for one in promotions if one.id == id), None)
    if found is None:
        raise PromotionError(f"there is no promotion {id}: it was removed from the store")
    return found
