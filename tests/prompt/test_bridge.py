"""Synchronous code in a thread, and the event loop that does what it asks for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agentlightning_prompt.bridge import Bridge


async def doubled(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_what_is_asked_for_runs_in_the_loop_and_the_function_beside_it() -> None:
    bridge = Bridge()
    here = threading.get_ident()

    async def thread() -> int:
        return threading.get_ident()

    def function() -> tuple[int, bool, bool]:
        return (
            bridge.call(lambda: doubled(4)),
            bridge.call(thread) == here,
            threading.get_ident() == here,
        )

    assert await bridge.serve(function) == (8, True, False)


async def test_work_that_fails_ends_the_function_past_what_it_catches() -> None:
    bridge = Bridge()
    went_on: list[str] = []

    async def fails() -> None:
        raise ValueError("no store")

    def function() -> None:
        try:
            bridge.call(fails)
        except Exception:  # noqa: BLE001 - as a library would
            went_on.append("caught")
        finally:
            bridge.call(lambda: doubled(1))
            went_on.append("cleaned up")

    with pytest.raises(ValueError, match="no store"):
        await bridge.serve(function)
    assert went_on == []


async def test_what_the_function_raises_is_raised() -> None:
    def function() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await Bridge().serve(function)


async def test_a_function_that_works_by_itself_is_ended_with_its_caller() -> None:
    bridge = Bridge()
    began, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def function() -> None:
        try:
            loop.call_soon_threadsafe(began.set)
            while True:
                sum(range(100))
        finally:
            ended.set()

    serving = asyncio.ensure_future(bridge.serve(function))
    await began.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert ended.is_set()
