"""Runs of an agent that begin where no rollout is active: in a deployed process, each may become a rollout.

Who wants to know of them is the opener (`agentlightning.online`); without one nothing happens here. Only the outermost
run is one: a graph that is called as a tool of an agent is part of that agent's run.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from agentlightning.recording.context import current, unsampled
from agentlightning.recording.failures import guarded
from agentlightning.recording.strays import is_outside


class TopLevelRun(Protocol):
    """A run that goes on."""

    rollout_id: str | None
    """None where it is not recorded."""

    def active(self) -> AbstractContextManager[None]:
        """What is done inside the block belongs to the run; it may be entered again."""

    def end(self, output: Any, error: BaseException | None) -> None:
        """The run has ended, once. Never raises."""


Opener = Callable[[Callable[[], Any], str | None], TopLevelRun]
"""Opens a run: what reads its input, and the name of the agent that it is, where no framework says it. Never raises."""

_opener: Opener | None = None


def set_opener(opener: Opener | None) -> None:
    """Says who opens runs from now on; None: nobody."""
    global _opener
    _opener = opener


def open_run(read_input: Callable[[], Any], agent: str | None = None) -> TopLevelRun | None:
    """The run that begins here; None where there is nobody to record it, or it is part of another."""
    if _opener is None or is_outside.get():
        return None
    recorder, left_out = current(), unsampled.get()
    # A task that lives on after the run that it was begun in makes runs of its own.
    if (recorder is not None and not recorder.closed) or (left_out is not None and not left_out.ended):
        return None
    return _opener(read_input, agent)


class Call(NamedTuple):
    """How one call of an agent is read. ``ends_with`` gives what is waited for where the call returns before the run
    has ended; ``agent`` is its name, where no framework says it."""

    read_input: Callable[[], Any]
    read_output: Callable[[Any], Any]
    ends_with: Callable[[Any], asyncio.Future[Any] | None] | None = None
    agent: str | None = None


def followed(method: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls ``method``, a function, coroutine function or generator of either kind, as a run that may be recorded.

    What it returns, yields and raises is what the caller gets.
    """
    if inspect.iscoroutinefunction(method):
        return _awaited(method, call, args, kwargs)
    if inspect.isasyncgenfunction(method):
        return _streamed_async(method, call, args, kwargs)
    if inspect.isgeneratorfunction(method):
        return _streamed(method, call, args, kwargs)
    return _called(method, call, args, kwargs)


def _called(method: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    run = open_run(call.read_input, call.agent)
    if run is None:
        return method(*args, **kwargs)
    try:
        with run.active():
            result = method(*args, **kwargs)
    except BaseException as error:
        run.end(None, error)
        raise
    if call.ends_with is None or not _end_later(run, call, result):
        run.end(_read(call, result), None)
    return result


@guarded
def _end_later(run: TopLevelRun, call: Call, result: Any) -> bool:
    going_on = call.ends_with(result) if call.ends_with is not None else None
    if going_on is None:
        return False

    def end(future: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        run.end(None if error is not None else _read(call, result), error)

    going_on.add_done_callback(end)
    return True


async def _awaited(method: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    run = open_run(call.read_input, call.agent)
    if run is None:
        return await method(*args, **kwargs)
    try:
        with run.active():
            result = await method(*args, **kwargs)
    except BaseException as error:
        run.end(None, error)
        raise
    run.end(_read(call, result), None)
    return result


def _streamed(
    method: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Generator[Any, None, Any]:
    """The run is active while an item is made, and not while the consumer has it."""
    items = method(*args, **kwargs)
    run = open_run(call.read_input, call.agent)
    if run is None:
        return (yield from items)
    last: Any = None
    error: BaseException | None = None
    try:
        while True:
            with run.active():
                try:
                    item = next(items)
                except StopIteration as end:
                    return end.value
            last = item
            yield item
    except BaseException as raised:
        error = raised
        raise
    finally:
        with run.active():
            items.close()
        run.end(_read(call, last), error)


async def _streamed_async(
    method: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncIterator[Any]:
    items = method(*args, **kwargs)
    run = open_run(call.read_input, call.agent)
    last: Any = None
    error: BaseException | None = None
    try:
        while True:
            try:
                if run is None:
                    item = await anext(items)
                else:
                    with run.active():
                        item = await anext(items)
            except StopAsyncIteration:
                return
            last = item
            yield item
    except BaseException as raised:
        error = raised
        raise
    finally:
        if run is None:
            await items.aclose()
        else:
            with run.active():
                await items.aclose()
            run.end(_read(call, last), error)


def _read(call: Call, result: Any) -> Any:
    return guarded(call.read_output)(result)
