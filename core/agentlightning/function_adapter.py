"""Plain functions as agents: ``(input) -> output``, sync or async."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from agentlightning import semconv
from agentlightning.adapter import Adapter
from agentlightning.errors import AdapterError
from agentlightning.recording import span
from agentlightning.threads import call_in_thread

ATTRIBUTES = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: "function"}


class FunctionAdapter(Adapter):
    """Runs any callable. An asynchronous one is awaited on the loop; a synchronous one runs in a daemon
    thread of its own with the context carried over, so it may block, or never return. A generator is run to its end:
    its output is what it returns, else the last it yields.

    A class makes agents and is none. A run is a span; a model call in it that no framework places is made
    by an agent of the function's name.
    """

    name: ClassVar[str] = "function"
    priority: ClassVar[int] = -100

    def accepts(self, agent: Any) -> bool:
        return callable(agent) and not isinstance(agent, type)

    async def run(self, agent: Any, input: Any) -> Any:
        name = _name(agent)
        with span(name, "agent", agent=name, **ATTRIBUTES):
            output = agent(input) if _is_async(agent) else await call_in_thread(_call, agent, input)
            if inspect.isawaitable(output):
                output = await output
            if isinstance(output, AsyncIterator):
                return await _last(output)
            return await call_in_thread(_exhaust, output) if isinstance(output, Iterator) else output


def check_takes_input(agent: Any, target: str | None = None) -> None:
    """Raises `AdapterError` for a class, and for a function that cannot be called with one task's input; it is not
    called to see. ``target`` is how a config names it."""
    if not callable(agent):
        return
    name = target or _name(agent)
    made = f"where it makes the agent, write {name}(), and it is called once, as the run begins"
    if isinstance(agent, type):
        raise AdapterError(f"{name} is a class, not an agent: {made}")
    try:
        signature = inspect.signature(agent)
    except (TypeError, ValueError):
        return  # one of C, which has no signature
    try:
        signature.bind(None)
    except TypeError:
        takes = f"takes {signature}" if signature.parameters else "takes no input"
        advice = made if _needs_nothing(signature) else "name a function of one parameter that calls it"
        raise AdapterError(
            f"{name} {takes}: an agent is a function of one task's input, (input) -> output. Where it runs the agent, "
            f"give it that one parameter; {advice}"
        ) from None


def _needs_nothing(signature: inspect.Signature) -> bool:
    try:
        signature.bind()
    except TypeError:
        return False
    return True


def _is_async(agent: Any) -> bool:
    return inspect.iscoroutinefunction(agent) or inspect.iscoroutinefunction(type(agent).__call__)


def _call(agent: Any, input: Any) -> Any:
    output = agent(input)
    return _exhaust(output) if isinstance(output, Iterator) else output


def _exhaust(iterator: Iterator[Any]) -> Any:
    last = None
    try:
        while True:
            last = next(iterator)
    except StopIteration as end:
        return last if end.value is None else end.value
    finally:
        if inspect.isgenerator(iterator):
            iterator.close()


async def _last(iterator: AsyncIterator[Any]) -> Any:
    last = None
    try:
        async for value in iterator:
            last = value
    finally:
        if inspect.isasyncgen(iterator):
            await iterator.aclose()
    return last


def _name(agent: Any) -> str:
    """A function's own name, also where it is wrapped; else the name of the object's class."""
    while isinstance(agent, functools.partial):
        agent = agent.func
    return getattr(agent, "__name__", None) or type(agent).__name__
