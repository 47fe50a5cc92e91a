"""Where in the user's own code an exception came from, and where it is at the moment."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlightning.recording import failure_of, guarded
from agentlightning.threads import DaemonThreads
from agentlightning.tracebacks import definition, frames_of_threads, origin, running_now


def line_of(function: Callable[..., Any], text: str) -> str:
    """Where in a function of this file a text is, as `origin` says it."""
    lines, first = inspect.getsourcelines(function)
    (offset,) = [place for place, line in enumerate(lines) if text in line]
    file = Path(__file__)
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{first + offset}"


def raises() -> None:
    raise ValueError("no number")


def calls_a_library() -> None:
    json.loads("no json")


def explains_its_own() -> None:
    try:
        raises()
    except ValueError as error:
        raise RuntimeError("it did not work") from error


def library(function: Callable[[], None]) -> None:
    """What a framework does: it calls the user's function and raises an exception of its own about it."""
    namespace: dict[str, Any] = {"__name__": "agentlightning.pretended", "function": function}
    exec(  # a frame of a library: its module is none of the user's
        "def call():\n  try:\n    function()\n  except Exception as error:\n    raise RuntimeError('a tool failed') "
        "from error",
        namespace,
    )
    namespace["call"]()


async def in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(raises))


def caught(function: Callable[..., Any], *arguments: Any) -> BaseException:
    with pytest.raises(BaseException) as raised:
        function(*arguments)
    return raised.value


CASES = {
    "the line that raises": (raises, (), raises, 'raise ValueError("no number")'),
    "the line that calls a library which raises": (calls_a_library, (), calls_a_library, "json.loads"),
    "the user's own words about another error": (explains_its_own, (), explains_its_own, "raise RuntimeError"),
    "what a framework wrapped": (library, (raises,), raises, 'raise ValueError("no number")'),
    "what a library raised under a framework": (library, (calls_a_library,), calls_a_library, "json.loads"),
    "what a task group gathered": (lambda: asyncio.run(in_a_group()), (), raises, 'raise ValueError("no number")'),
}


@pytest.mark.parametrize(("function", "arguments", "expected", "line"), CASES.values(), ids=CASES.keys())
def test_an_exception_came_from_the_users_own_line(
    function: Callable[..., Any], arguments: tuple[Any, ...], expected: Callable[..., Any], line: str
) -> None:
    error = caught(function, *arguments)
    assert origin(error) == line_of(expected, line)
    assert failure_of(error).where == origin(error)


def test_the_failure_of_a_group_of_exceptions_says_the_first_of_them() -> None:
    failure = failure_of(caught(lambda: asyncio.run(in_a_group())))
    assert failure.message == "unhandled errors in a TaskGroup (1 sub-exception): ValueError: no number"


def test_what_no_code_of_the_user_took_part_in_has_no_origin() -> None:
    assert origin(ValueError("never raised")) is None


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert origin(first) is None


def test_a_function_is_defined_where_its_code_begins() -> None:
    assert definition(raises) == line_of(raises, "def raises")
    assert definition(guarded(raises)) == line_of(raises, "def raises")
    assert definition(len) is None


async def test_what_runs_now_is_found_in_tasks_and_in_threads() -> None:
    done, begun = threading.Event(), threading.Event()

    def in_a_thread() -> None:
        begun.set()
        done.wait(60)

    async def in_a_task() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(in_a_task())
    DaemonThreads().submit(in_a_thread)
    await asyncio.to_thread(begun.wait, 60)
    try:
        running = running_now([task])
        assert f"{line_of(in_a_task, 'asyncio.sleep')}: await asyncio.sleep(60)" in running
        assert f"{line_of(in_a_thread, 'done.wait')}: done.wait(60)" in running
    finally:
        done.set()
        task.cancel()


@pytest.mark.parametrize("enabled", [True, False])
def test_no_garbage_is_collected_while_python_holds_its_threads(monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    """A socket that is closed there lets a thread begin that waits for the lock, and both wait for ever."""
    found, collecting = sys._current_frames, []

    def current_frames() -> Any:
        collecting.append(gc.isenabled())
        return found()

    monkeypatch.setattr(sys, "_current_frames", current_frames)
    (gc.enable if enabled else gc.disable)()
    try:
        frames = frames_of_threads()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert collecting == [False]
    assert threading.get_ident() in frames
