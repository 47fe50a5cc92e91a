"""Plain functions as agents: ``(input) -> output``, sync or async."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from typing import Any, ClassVar

from agentlightning import semconv
from agentlightning.adapter import Adapter, AgentDescription
from agentlightning.errors import AdapterError
from agentlightning.recording import span
from agentlightning.threads import DaemonThreads

ATTRIBUTES = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: "function"}

_threads = DaemonThreads()


class FunctionAdapter(Adapter):
    """Runs any callable. An asynchronous one is awaited on the loop; a synchronous one runs in a daemon
    thread of its own with the context carried over, so it may block, or never return.

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
            if _is_async(agent):
                return await agent(input)
            call = contextvars.copy_context().run
            output = await asyncio.get_running_loop().run_in_executor(_threads, call, agent, input)
            return await output if inspect.isawaitable(output) else output

    def describe(self, agent: Any) -> AgentDescription:
        return AgentDescription(
            framework=self.name,
            kind="async function" if _is_async(agent) else "function",
            input="the task's input, as it is",
        )


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


def _name(agent: Any) -> str:
    """A function's own name, also where it is wrapped; else the name of the object's class."""
    while isinstance(agent, functools.partial):
        agent = agent.func
    return getattr(agent, "__name__", None) or type(agent).__name__
