"""Hooks into AutoGen: the public methods of agents, teams, tools and memories, wrapped where a class defines them.

agent       ``run``, ``run_stream``, ``on_messages``, ``on_messages_stream`` of every `ChatAgent`
team        ``run``, ``run_stream`` of every `Team`
manager     a team's selector or orchestrator, when it calls a model: the runtime's handling of messages
tool        ``run_json``, ``run_json_stream`` of every `BaseTool`
handoff     a tool that hands over, or a `HandoffMessage` without one
retrieval   ``update_context``, ``query`` of every `Memory`

A method that calls another of the same object is one span.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from autogen_core.memory import Memory
from autogen_core.tools import BaseTool

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes, parse_arguments, tool_attributes
from agentlightning.patching import Patches, Wrapper
from agentlightning.recording import Recorder, current, guarded
from agentlightning.records import Span
from agentlightning_autogen import internals
from agentlightning_autogen.adapter import to_plain
from agentlightning_autogen.span_stack import HookedCall, OwnerFrame, begin_call, handling, keep_team, stack

logger = logging.getLogger(__name__)

Begin = Callable[..., HookedCall | None]
"""Begins a call of a hooked method; it is given the object, and the arguments."""

AGENT_METHODS = ("run", "run_stream", "on_messages", "on_messages_stream")
TEAM_METHODS = ("run", "run_stream")
TOOL_METHODS = ("run_json", "run_json_stream")
MEMORY_METHODS = ("update_context", "query")

_END = object()
_patches = Patches()
_watched: list[Any] = []
"""Classes whose subclasses are hooked when they are written."""


def install() -> None:
    """Wraps what there is, once, and what will be written. Called again, it takes in what has been imported since: the
    core API may be all that is loaded."""
    stack.install()
    _hook_handlers()
    agentchat = sys.modules.get("autogen_agentchat.base")
    for base, methods, begin in (
        (getattr(agentchat, "ChatAgent", None), AGENT_METHODS, _begin_agent),
        (getattr(agentchat, "Team", None), TEAM_METHODS, _begin_team),
        (BaseTool, TOOL_METHODS, _begin_tool),
        (Memory, MEMORY_METHODS, _begin_memory),
    ):
        if base is not None:
            _hook_family(base, methods, begin)


def uninstall() -> None:
    """Puts every method back."""
    _patches.remove()
    for base in _watched:
        del base.__init_subclass__
    _watched.clear()
    stack.uninstall()


def _hook_family(base: Any, methods: tuple[str, ...], begin: Begin) -> None:
    """Wraps the methods of a class and of those below it, once, and of each that will be written."""

    def hook(kind: type) -> None:
        for name in methods:
            method = vars(kind).get(name)
            if inspect.isfunction(method) and not getattr(method, "__isabstractmethod__", False):
                _patches.add((kind, name, _wrapper(method, begin)))

    def init_subclass(cls: type, /, **kwargs: Any) -> None:
        super(base, cls).__init_subclass__(**kwargs)
        guarded(hook)(cls)

    for kind in _family(base):
        hook(kind)
    if base not in _watched:
        base.__init_subclass__ = classmethod(init_subclass)
        _watched.append(base)


def _family(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = type.__subclasses__(kind)
    for below in subclasses:
        yield from _family(below)


def _hook_handlers() -> None:
    def populate(populate_context: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        context: AbstractContextManager[None] = populate_context(*args, **kwargs)
        return guarded(handling)(args[0] if args else kwargs["agent_id"], context) or context

    try:
        _patches.add((internals.HANDLER_CONTEXT, internals.HANDLER_METHOD, populate))
    except AttributeError as error:
        logger.warning(
            "%s in this autogen-core: what a team's manager does is recorded as the team's, and a runtime that was "
            "started outside of a rollout is not followed",
            error,
        )


def _wrapper(method: Callable[..., Any], begin: Begin) -> Wrapper:
    begin = guarded(begin)

    async def call(method: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooked = begin(owner, *args, **kwargs) if current() is not None else None
        if hooked is None:
            return await method(*args, **kwargs)
        try:
            with hooked:
                result = await method(*args, **kwargs)
                hooked.read(result)
        except BaseException as error:
            hooked.end(error)
            raise
        hooked.end()
        return result

    def stream(method: Any, owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        items = method(*args, **kwargs)
        if current() is None or not hasattr(items, "__anext__"):
            return items
        return _follow(items, functools.partial(begin, owner, *args, **kwargs))

    return call if inspect.iscoroutinefunction(method) else stream


async def _follow(items: Any, begin: Begin) -> AsyncIterator[Any]:
    """The same items. The frame is pushed while one is made, and never while the consumer has it: an asynchronous
    generator runs in the context of whoever asks it."""
    item: Any = None
    hooked = begin()
    if hooked is None:
        async for item in items:
            yield item
        return
    failure: BaseException | None = None
    try:
        while True:
            with hooked:
                last, item = item, await anext(items, _END)
            if item is _END:
                break
            if hooked.reads_all:
                hooked.read(item)
            yield item
        if not hooked.reads_all:
            hooked.read(last)
    except BaseException as error:
        failure = error
        raise
    finally:
        with hooked:
            if hasattr(items, "aclose"):
                await items.aclose()
        hooked.end(failure)


def _begin_agent(agent: Any, *_: Any, **__: Any) -> HookedCall | None:
    from agentlightning_autogen.calls import Turn

    attributes = agent_attributes("agent")
    call = begin_call(agent, "agent", agent.name, attributes, _read_agent, agent=agent.name, reads_all=True)
    if call is not None and call.is_outermost and call.frame.span is not None:
        call.frame.turn = Turn(call.frame.recorder, agent, call.frame.span)
    return call


def _read_agent(frame: OwnerFrame, item: Any) -> None:
    if frame.turn is not None:
        frame.turn.read(item)


def _begin_team(team: Any, *_: Any, **__: Any) -> HookedCall | None:
    call = begin_call(team, "agent", team.name, agent_attributes("team"), agent=team.name)
    key = internals.team_id(team)
    if call is not None and key is not None:
        keep_team(key, call.frame)
    return call


def _begin_tool(
    tool: Any, args: Any, cancellation_token: Any = None, call_id: str | None = None, **_: Any
) -> HookedCall | None:
    attributes = tool_attributes(tool.name, call_id, to_plain(args))
    call = begin_call(tool, "tool", tool.name, attributes, _read_tool)
    span = call.frame.span if call is not None and call.is_outermost else None
    if call is None or span is None:
        return call
    if call_id is None:
        span.attributes.update(_call_of(call.frame.recorder, span))
    turn = call.frame.turn_around
    target = turn.tool_begins(call_id) if turn is not None else None
    if target is not None:
        span.kind, span.name = "handoff", target
        span.attributes[semconv.AGENT_NAME] = target
    return call


def _call_of(recorder: Recorder, tool: Span) -> dict[str, Any]:
    """The id of the call that a tool answers, where who runs it does not say: it is in the last answer of the same
    agent's model. Of calls that are equal each is taken once."""
    answered = recorder.last_call
    if answered is None or answered.parent_id != tool.parent_id or answered.generation is None:
        return {}
    taken: set[tuple[str, str]] = recorder.adapter_state.setdefault("autogen", set())
    wanted = (tool.name, tool.attributes.get(semconv.TOOL_CALL_ARGUMENTS))
    for call in (answered.generation.response or {}).get("tool_calls") or ():
        function = call.get("function") or {}
        is_same = (function.get("name"), parse_arguments(function.get("arguments") or "")) == wanted
        if is_same and (answered.id, call["id"]) not in taken:
            taken.add((answered.id, call["id"]))
            return {semconv.TOOL_CALL_ID: call["id"]}
    return {}


def _read_tool(frame: OwnerFrame, result: Any) -> None:
    if frame.span is not None:
        is_data = isinstance(result, str | int | float | bool | list | dict)
        text = to_plain(result) if is_data else frame.owner.return_value_as_string(result)
        frame.span.attributes[semconv.TOOL_CALL_RESULT] = text


def _begin_memory(memory: Any, query: Any = None, *_: Any, **__: Any) -> HookedCall | None:
    name = getattr(memory, "name", None)
    name = name if isinstance(name, str) else type(memory).__name__
    text = getattr(query, "content", query)
    call = begin_call(memory, "retrieval", name, {}, _read_memory)
    if call is not None and call.frame.span is not None and isinstance(text, str):
        call.frame.span.attributes[semconv.RETRIEVAL_QUERY] = text
    return call


def _read_memory(frame: OwnerFrame, found: Any) -> None:
    results = getattr(getattr(found, "memories", found), "results", None)
    if frame.span is not None and results is not None:
        documents = [{"content": to_plain(item.content), "metadata": to_plain(item.metadata)} for item in results]
        frame.span.attributes[semconv.RETRIEVAL_DOCUMENTS] = documents
