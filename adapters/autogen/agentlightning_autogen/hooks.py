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
from agentlightning.recording import Recorder, add_locator, current, guarded, remove_locator
from agentlightning.records import Span
from agentlightning_autogen import private
from agentlightning_autogen.plain import parsed, plain, tool_attributes
from agentlightning_autogen.scopes import Entered, Scope, enter, handling, keep_team, locator

logger = logging.getLogger(__name__)

Opener = Callable[..., Entered | None]

AGENT_METHODS = ("run", "run_stream", "on_messages", "on_messages_stream")
TEAM_METHODS = ("run", "run_stream")
TOOL_METHODS = ("run_json", "run_json_stream")
MEMORY_METHODS = ("update_context", "query")

AGENT_ATTRIBUTES = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: "agent"}
TEAM_ATTRIBUTES = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: "team"}

MARK = "__agentlightning_hook__"

_END = object()
_installed = False
_originals: list[tuple[type, str, Any, Any]] = []


def install() -> None:
    """Wraps what there is, once, and what will be written; adds the locator. Called again, it takes in what has been
    imported since: the core API may be all that is loaded."""
    global _installed
    if not _installed:
        _installed = True
        _hook_handlers()
        add_locator(locator)
    agentchat = sys.modules.get("autogen_agentchat.base")
    for base, methods, opener in (
        (getattr(agentchat, "ChatAgent", None), AGENT_METHODS, _open_agent),
        (getattr(agentchat, "Team", None), TEAM_METHODS, _open_team),
        (BaseTool, TOOL_METHODS, _open_tool),
        (Memory, MEMORY_METHODS, _open_memory),
    ):
        if base is not None:
            _hook_family(base, methods, opener)


def uninstall() -> None:
    """Puts every method back, and removes the locator."""
    global _installed
    _installed = False
    for owner, name, original, hooked in reversed(_originals):
        if vars(owner).get(name) is not hooked:
            continue
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    _originals.clear()
    remove_locator(locator)


def _hook_family(base: Any, methods: tuple[str, ...], opener: Opener) -> None:
    """Wraps the methods of a class and of those below it, once, and of each that will be written."""

    def hook(kind: type) -> None:
        for name in methods:
            _replace(kind, name, functools.partial(_wrap, opener=opener))

    for kind in _family(base):
        hook(kind)
    own = vars(base).get("__init_subclass__")
    if own is not None and hasattr(own.__func__, MARK):
        return

    def init_subclass(cls: type, **kwargs: Any) -> None:
        (super(base, cls).__init_subclass__ if own is None else own.__get__(None, cls))(**kwargs)
        guarded(hook)(cls)

    setattr(init_subclass, MARK, True)
    hooked: Any = classmethod(init_subclass)
    base.__init_subclass__ = hooked
    _originals.append((base, "__init_subclass__", own, hooked))


def _family(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = type.__subclasses__(kind)
    for below in subclasses:
        yield from _family(below)


def _replace(owner: type, name: str, wrap: Callable[[Any], Any]) -> None:
    original = vars(owner).get(name)
    if not inspect.isfunction(original) or getattr(original, "__isabstractmethod__", False):
        return
    if hasattr(original, MARK):
        return
    hooked = wrap(original)
    setattr(hooked, MARK, True)
    setattr(owner, name, hooked)
    _originals.append((owner, name, original, hooked))


def _wrap(original: Callable[..., Any], opener: Opener) -> Callable[..., Any]:
    opened = guarded(opener)
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            entered = opened(self, *args, **kwargs) if current() is not None else None
            if entered is None:
                return await original(self, *args, **kwargs)
            try:
                with entered:
                    result = await original(self, *args, **kwargs)
                    entered.read(result)
            except BaseException as error:
                entered.end(error)
                raise
            entered.end()
            return result

        return call

    @functools.wraps(original)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Any:
        items = original(self, *args, **kwargs)
        if current() is None or not hasattr(items, "__anext__"):
            return items
        return _followed(items, functools.partial(opened, self, *args, **kwargs))

    return stream


async def _followed(items: Any, opened: Opener) -> AsyncIterator[Any]:
    """The same items. The scope is current while one is made, and never while the consumer has it: an asynchronous
    generator runs in the context of whoever asks it."""
    item: Any = None
    entered = opened()
    if entered is None:
        async for item in items:
            yield item
        return
    failure: BaseException | None = None
    try:
        while True:
            with entered:
                last, item = item, await anext(items, _END)
            if item is _END:
                break
            if entered.every:
                entered.read(item)
            yield item
        if not entered.every:
            entered.read(last)
    except BaseException as error:
        failure = error
        raise
    finally:
        with entered:
            if hasattr(items, "aclose"):
                await items.aclose()
        entered.end(failure)


def _open_agent(agent: Any, *_: Any, **__: Any) -> Entered | None:
    from agentlightning_autogen.turns import Turn

    entered = enter(agent, "agent", agent.name, AGENT_ATTRIBUTES, _read_agent, agent=agent.name, every=True)
    if entered is not None and entered.mine and entered.scope.span is not None:
        entered.scope.turn = Turn(entered.scope.recorder, agent, entered.scope.span)
    return entered


def _read_agent(scope: Scope, said: Any) -> None:
    if scope.turn is not None:
        scope.turn.see(said)


def _open_team(team: Any, *_: Any, **__: Any) -> Entered | None:
    entered = enter(team, "agent", team.name, TEAM_ATTRIBUTES, _read_nothing, agent=team.name)
    key = private.team_id(team)
    if entered is not None and key is not None:
        keep_team(key, entered.scope)
    return entered


def _read_nothing(_: Scope, __: Any) -> None:
    pass


def _open_tool(
    tool: Any, args: Any, cancellation_token: Any = None, call_id: str | None = None, **_: Any
) -> Entered | None:
    attributes = tool_attributes(tool.name, call_id, plain(args))
    entered = enter(tool, "tool", tool.name, attributes, _read_tool)
    if entered is None or not entered.mine or entered.scope.span is None:
        return entered
    if call_id is None:
        entered.scope.span.attributes.update(_call_asked_for(entered.scope.recorder, entered.scope.span))
    turn = entered.scope.within()
    target = turn.begins(call_id) if turn is not None else None
    if target is not None:
        span = entered.scope.span
        span.kind, span.name = "handoff", target
        span.attributes[semconv.AGENT_NAME] = target
    return entered


def _call_asked_for(recorder: Recorder, tool: Span) -> dict[str, Any]:
    """The id of the call that a tool answers, where who runs it does not say: it is in the last answer of the same
    agent's model. Of calls that are equal each is taken once."""
    asked = recorder.last_call
    if asked is None or asked.parent_id != tool.parent_id or asked.generation is None:
        return {}
    taken: set[tuple[str, str]] = recorder.adapter_state.setdefault("autogen", set())
    for call in (asked.generation.response or {}).get("tool_calls") or ():
        function = call.get("function") or {}
        same = (function.get("name"), parsed(function.get("arguments") or "")) == (
            tool.name,
            tool.attributes.get(semconv.TOOL_CALL_ARGUMENTS),
        )
        if same and (asked.id, call["id"]) not in taken:
            taken.add((asked.id, call["id"]))
            return {semconv.TOOL_CALL_ID: call["id"]}
    return {}


def _read_tool(scope: Scope, result: Any) -> None:
    if scope.span is not None:
        told = result if isinstance(result, str | int | float | bool | list | dict | None) else None
        text = scope.owner.return_value_as_string
        scope.span.attributes[semconv.TOOL_CALL_RESULT] = plain(told) if told is not None else text(result)


def _open_memory(memory: Any, query: Any = None, *_: Any, **__: Any) -> Entered | None:
    name = getattr(memory, "name", None)
    entered = enter(memory, "retrieval", name if isinstance(name, str) else type(memory).__name__, {}, _read_memory)
    if entered is not None and entered.scope.span is not None:
        text = getattr(query, "content", query)
        if isinstance(text, str):
            entered.scope.span.attributes[semconv.RETRIEVAL_QUERY] = text
    return entered


def _read_memory(scope: Scope, found: Any) -> None:
    results = getattr(getattr(found, "memories", found), "results", None)
    if scope.span is not None and results is not None:
        documents = [{"content": plain(item.content), "metadata": plain(item.metadata)} for item in results]
        scope.span.attributes[semconv.RETRIEVAL_DOCUMENTS] = documents


def _hook_handlers() -> None:
    owner, name = private.HANDLER_CONTEXT, private.HANDLER_METHOD
    original = vars(owner).get(name)
    if not isinstance(original, classmethod):
        logger.warning(
            "this autogen-core has no MessageHandlerContext.%s: what a team's manager does is recorded as the team's, "
            "and a runtime that was started outside of a rollout is not followed",
            name,
        )
        return
    populate = original.__get__(None, owner)
    handled = guarded(handling)

    def populate_context(cls: type, agent_id: Any) -> AbstractContextManager[None]:
        context = populate(agent_id)
        return handled(agent_id, context) or context

    hooked: Any = classmethod(populate_context)
    setattr(owner, name, hooked)
    _originals.append((owner, name, original, hooked))
