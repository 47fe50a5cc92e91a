"""What is running here: agents, teams, tools and memories as they are entered, each with its span.

A `Scope` is current in a context variable, so it follows tasks. The runtime of a team handles messages in the context
of its ``start()``, which may lie outside the team, or outside the rollout; `handling` finds the team by its key then.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from agentlightning import semconv
from agentlightning.recording import (
    Recorder,
    current,
    failure_of,
    guarded,
    innermost,
    locate,
    recording,
)
from agentlightning.records import Failure, Span, SpanKind
from agentlightning.threads import was_left
from agentlightning_autogen.plain import tool_attributes

if TYPE_CHECKING:
    from agentlightning_autogen.turns import Turn

FAILURES: dict[str, str] = {"tool": "tool_error", "handoff": "tool_error", "retrieval": "retrieval_error"}


class Scope:
    """Something of AutoGen's that is running, for ``owner``; ``above`` is what it was entered in.

    ``turn`` is kept for an agent, ``causes`` are what the message handlers of a team have raised.
    """

    __slots__ = ("__weakref__", "above", "causes", "ended", "owner", "recorder", "span", "turn")

    def __init__(self, recorder: Recorder, owner: Any, span: Span | None, above: Scope | None) -> None:
        self.recorder = recorder
        self.owner = owner
        self.span = span
        self.above = above
        self.turn: Turn | None = None
        self.causes: list[Exception] = []
        self.ended = False

    def place(self) -> Span | None:
        """The span that a call made in here hangs under."""
        return self.span

    def within(self) -> Turn | None:
        """The turn of the agent that this is, or is in."""
        scope: Scope | None = self
        while scope is not None and scope.turn is None:
            scope = scope.above
        return scope.turn if scope is not None else None

    @guarded
    def end(self, error: BaseException | None) -> None:
        """Ends the span. A team's error is given what a participant raised as its cause: AutoGen keeps the text."""
        self.ended = True
        if isinstance(error, RuntimeError) and error.__cause__ is None:
            for cause in self.causes:
                if is_text_of(error, cause):
                    error.__cause__ = cause
        if self.span is not None:
            self.recorder.end(self.span, self._failure(error), left=was_left(error))

    def _failure(self, error: BaseException | None) -> Failure | None:
        if error is None or was_left(error) or self.span is None:
            return None
        return failure_of(root_cause(error), FAILURES.get(self.span.kind, "agent_error"))


class Handler(Scope):
    """The handling of one message by an agent of the runtime, in its ``context``. Its span begins when it calls a model
    or a tool, as a team's manager does to select who speaks, and most do not."""

    __slots__ = ("_agent_id", "_context", "_recording", "_task", "_token", "base")

    def __init__(
        self, recorder: Recorder, agent_id: Any, team: Scope | None, context: AbstractContextManager[None]
    ) -> None:
        above = running(recorder)
        super().__init__(recorder, None, None, team if team is not None and not _is_in(above, team) else above)
        self.base = locate(recorder) if self.above is None else None
        self._agent_id = agent_id
        self._context = context
        self._recording: AbstractContextManager[Recorder] | None = None
        self._task: asyncio.Task[Any] | None = None

    def place(self) -> Span | None:
        if self.span is None:
            name = self._agent_id.type.removesuffix(f"_{self._agent_id.key}")
            structure = "manager" if team_of(self._agent_id) is not None else "agent"
            attributes = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}
            parent = _base(self.recorder, self)
            self.span = self.recorder.start("agent", name, parent=parent, agent=name, attributes=attributes)
        return self.span

    def __enter__(self) -> None:
        self._context.__enter__()
        if current() is not self.recorder:
            self._recording = recording(self.recorder)
            self._recording.__enter__()
        self._token = _inside.set(self)
        self._task = asyncio.current_task()
        if self._task is not None:
            _tasks.get().add(self._task)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            _tasks.get().discard(self._task)
        _inside.reset(self._token)
        if self._recording is not None:
            self._recording.__exit__(None, None, None)
        if isinstance(error, Exception):
            team = team_of(self._agent_id)
            if team is not None:
                team.causes.append(error)
        if is_tools_answer(error):
            self._tell_of_unstarted(error)
            error = None
        self.end(error)
        self._context.__exit__(None, None, None)

    @guarded
    def _tell_of_unstarted(self, error: Any) -> None:
        """A tool that does not exist, or whose arguments are no JSON, is a failed tool, too."""
        if self.span is None:
            attributes = tool_attributes(error.name, error.call_id, None)
            tool = self.recorder.start("tool", error.name, parent=self.place(), attributes=attributes)
            self.recorder.end(tool, Failure(type="tool_error", message=error.content))


class Entered:
    """A scope that was entered here: made for it (``mine``), or the owner's that is running already.

    ``every`` item of a stream is read, or the last alone.
    """

    __slots__ = ("_read", "_token", "every", "mine", "scope")

    def __init__(self, scope: Scope, mine: bool, read: Callable[[Scope, Any], None], every: bool) -> None:
        self.scope = scope
        self.mine = mine
        self.every = every
        self._read = read
        self._token: Token[Scope | None] | None = None

    def __enter__(self) -> Entered:
        self._token = _inside.set(self.scope) if self.mine else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _inside.reset(self._token)

    @guarded
    def read(self, result: Any) -> None:
        """Takes what came out of it."""
        self._read(self.scope, result)

    def end(self, error: BaseException | None = None) -> None:
        """Ends the scope if it was made here."""
        if self.mine:
            self.scope.end(error)


_inside: ContextVar[Scope | None] = ContextVar("agentlightning_autogen_inside", default=None)
_teams: WeakValueDictionary[str, Scope] = WeakValueDictionary()
_tasks: ContextVar[set[asyncio.Task[Any]]] = ContextVar("agentlightning_autogen_tasks", default=set())  # noqa: B039


def enter(
    owner: Any,
    kind: SpanKind,
    name: str,
    attributes: dict[str, Any],
    read: Callable[[Scope, Any], None],
    *,
    agent: str | None = None,
    every: bool = False,
) -> Entered | None:
    """Enters the scope of ``owner``, with a span unless it is the one that is running here; None outside a rollout."""
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    above = running(recorder)
    if above is not None and above.owner is owner:
        return Entered(above, False, read, every)
    # A message handler that only has an agent answer is no agent itself; one that runs a tool is.
    parent = _base(recorder, above) if kind == "agent" or above is None else innermost(above.place())
    span = recorder.start(kind, name, parent=parent, agent=agent, attributes=dict(attributes))
    return Entered(Scope(recorder, owner, span, above), True, read, every)


def keep_team(key: str, scope: Scope) -> None:
    """Keeps a team's scope to be found by its key in the runtime, as long as it is running."""
    _teams[key] = scope


def team_of(agent_id: Any) -> Scope | None:
    """The running team that an agent of the runtime belongs to."""
    team = _teams.get(agent_id.key)
    return team if team is not None and not team.ended else None


def handling(agent_id: Any, context: AbstractContextManager[None]) -> Handler | None:
    """The scope of a message that an agent of the runtime is about to handle in ``context``; None outside a rollout."""
    team = team_of(agent_id)
    recorder = team.recorder if team is not None else current()
    return Handler(recorder, agent_id, team, context) if recorder is not None and not recorder.closed else None


def running(recorder: Recorder) -> Scope | None:
    """The innermost scope here that has not ended."""
    scope = _inside.get()
    while scope is not None and (scope.ended or scope.recorder is not recorder):
        scope = scope.above
    return scope


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under; None outside AutoGen."""
    scope = running(recorder)
    return scope.place() if scope is not None else None


def handling_tasks() -> set[asyncio.Task[Any]]:
    """Begins to collect the tasks that handle messages for what is started here; each leaves when it is done."""
    tasks: set[asyncio.Task[Any]] = set()
    _tasks.set(tasks)
    return tasks


def root_cause(error: BaseException) -> BaseException:
    """What a participant raised, where a team has made a ``RuntimeError`` with its type and traceback as text of it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None and is_text_of(error, error.__cause__):
        error = error.__cause__
    return error


def is_text_of(error: RuntimeError, cause: BaseException) -> bool:
    """Whether a team made ``error`` of ``cause``."""
    return str(error).startswith(f"{type(cause).__name__}: {cause}\nTraceback:")


def is_tools_answer(error: BaseException | None) -> bool:
    """Whether it is how a ``ToolAgent`` tells who asked it that a tool failed: the agent itself has not."""
    return isinstance(error, getattr(sys.modules.get("autogen_core.tool_agent"), "ToolException", ()))


def _base(recorder: Recorder, scope: Scope | None) -> Span | None:
    """The span that a new one hangs under, without beginning a handler's."""
    while isinstance(scope, Handler) and scope.span is None:
        if scope.above is None:
            return innermost(scope.base)
        scope = scope.above
    return innermost(scope.span) if scope is not None else locate(recorder)


def _is_in(scope: Scope | None, other: Scope) -> bool:
    while scope is not None and scope is not other:
        scope = scope.above
    return scope is other
