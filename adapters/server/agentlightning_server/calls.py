"""What the server does for each method: mostly, it calls the store's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from agentlightning.records import Record, Rollout, encode
from agentlightning.redaction import scrub
from agentlightning.store.base import Store
from agentlightning.store.promotions import Promotion
from agentlightning_server.errors import RequestError
from agentlightning_server.methods import Method
from agentlightning_server.sessions import Session
from agentlightning_server.wire import WAIT_SECONDS

T = TypeVar("T")


async def call(store: Store, method: Method, arguments: Any, stopping: asyncio.Event) -> Any:
    """Calls a method of ``store``; what is handed over to its writer is durable when this returns."""
    if method.name in ("add_spans", "add_metrics"):
        # In a thread, for it encodes, and waits where too much is to be written.
        await asyncio.to_thread(getattr(store, method.name), *_values(arguments).values())
        return await store.flush()
    if method.name == "wait":
        seconds = WAIT_SECONDS if arguments.seconds is None else arguments.seconds
        return await _wait(stopping, seconds, [], lambda seconds: store.wait(arguments.ids, seconds=seconds))
    if method.name == "wait_for_ended":
        run_id, more_than = arguments.run_id, arguments.more_than

        def wait(seconds: float) -> Awaitable[int]:
            return store.wait_for_ended(run_id, more_than=more_than, seconds=seconds)

        return await _wait(stopping, arguments.seconds, 0, wait)
    if method.name == "wait_for_promotions":
        target, newer_than = arguments.target, arguments.newer_than

        def wait_for_change(seconds: float) -> Awaitable[list[Promotion]]:
            return store.wait_for_promotions(target, newer_than=newer_than, seconds=seconds)

        return await _wait(stopping, arguments.seconds, [], wait_for_change)
    return await getattr(store, method.name)(**_values(arguments))


async def lease(session: Session, arguments: Any, *, again: bool) -> list[Rollout]:
    """Leases once: where the answer to the same request was lost with an earlier server, what was leased then is what
    the client does not know that it holds."""
    async with session.leasing:
        leased: list[Rollout] = []
        if again:
            known = session.leased.union(arguments.held)
            wanted = None if arguments.ids is None else set(arguments.ids)
            leased = [
                rollout
                for rollout in await session.store.leased(arguments.worker)
                if rollout.id not in known
                and (wanted is None or rollout.id in wanted)
                and arguments.run_id in (None, rollout.run_id)
            ][: arguments.limit]
        if not leased:
            leased = await session.store.lease(
                arguments.worker,
                ids=arguments.ids,
                run_id=arguments.run_id,
                limit=arguments.limit,
                seconds=arguments.seconds,
            )
        session.leased.update(rollout.id for rollout in leased)
        return leased


async def finish(session: Session, rollout: Rollout, *, again: bool) -> bool:
    """Finishes once: where the answer to the same request was lost with an earlier server, it is finished already."""
    if await session.store.finish(rollout):
        session.leased.discard(rollout.id)
        return True
    known = await session.store.rollout(rollout.id) if again else None
    return known is not None and _result(known) == _result(rollout)


def _result(rollout: Rollout) -> bytes:
    """What `finish` has written of a rollout; rewards, and why one has no value, may have come since."""
    return scrub(encode(msgspec.structs.replace(rollout, rewards=[], failure=None)))


async def _wait(stopping: asyncio.Event, seconds: float, nothing: T, wait: Callable[[float], Awaitable[T]]) -> T:
    """Waits for a while only, and not for a server that is to stop: then it is ``nothing``, and the client asks
    again."""
    waiting = asyncio.ensure_future(wait(min(seconds, WAIT_SECONDS)))
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if waiting.done():
        return waiting.result()
    waiting.cancel()
    return nothing


def refuse_what_no_store_holds(value: Any, where: str = "") -> None:
    """Raises `RequestError` for numbers that SQLite has no column for. A batch that holds one could never be written,
    nor what waits behind it."""
    if isinstance(value, list):
        for item in value:
            refuse_what_no_store_holds(item, where)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            inner = getattr(value, name)
            at = f"{where}.{name}" if where else name
            if isinstance(inner, int) and not -(2**63) <= inner < 2**63:
                raise RequestError(400, f"{at}: expected an integer of 64 bits, got {inner}")
            if name in ("at", "seconds") and isinstance(inner, float) and math.isnan(inner):
                raise RequestError(400, f"{at}: expected a number, got {inner}")
            if where in ("", "recorded") and isinstance(inner, list | Record):
                refuse_what_no_store_holds(inner, at)


def _values(arguments: Any) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in arguments.__struct_fields__}
