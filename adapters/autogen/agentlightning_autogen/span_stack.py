"""What of AutoGen's runs here: agents, teams, tools and memories, each with its span.

The context variable of the stack follows tasks. The runtime of a team handles messages in the context of its
``start()``, which may lie outside the team, or outside the rollout; `handling` finds the team by its key then.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from agentlightning.adapterkit.attributes import agent_attributes, tool_attributes
from agentlightning.adapterkit.span_stack import Frame, SpanStack
from agentlightning.recording import Recorder, current, failure_of, guarded, innermost, locate, recording
from agentlightning.records import Failure, Span, SpanKind
from agentlightning.threads import was_left

if TYPE_CHECKING:
    from agentlightning_autogen.calls import Turn

FAILURES: dict[str, str] = {"tool": "tool_error", "handoff": "tool_error", "retrieval": "retrieval_error"}


@dataclass(eq=False)
class OwnerFrame(Frame):
    """A method of ``owner`` that runs: an agent, a team, a tool or a memory.

    ``turn`` is kept for an agent, ``causes`` are what the message handlers of a team have raised.
    """

    owner: Any = None
    turn: Turn | None = None
    causes: list[Exception] = field(default_factory=list)

    @property
    def turn_around(self) -> Turn | None:
        """The turn of the agent that this is, or is in."""
        frame: OwnerFrame | None = self
        while frame is not None and frame.turn is None:
            frame = frame.parent
        return frame.turn if frame is not None else None

    @guarded
    def end(self, error: BaseException | None) -> None:
        """Ends the span. Of what a participant raised, AutoGen keeps the text in the team's error: the exception itself
        becomes that error's cause."""
        self.ended = True
        if isinstance(error, RuntimeError) and error.__cause__ is None:
            for cause in self.causes:
                if _is_text_of(error, cause):
                    error.__cause__ = cause
        if self.span is not None:
            self.recorder.end(self.span, self._failure(self.span.kind, error), left=was_left(error))

    def _failure(self, kind: SpanKind, error: BaseException | None) -> Failure | None:
        if error is None or was_left(error):
            return None
        return failure_of(root_cause(error), FAILURES.get(kind, "agent_error"))


@dataclass(eq=False)
class MessageFrame(OwnerFrame):
    """The handling of one message by an agent of the runtime. It has a span where it calls a model or a tool, as a
    team's manager does to select who speaks, and most do not."""

    agent_id: Any = None

    def end(self, error: BaseException | None) -> None:
        """Ends the span. A ``ToolAgent`` raises a `ToolException` to report a failed tool to its caller: it has not
        failed itself. A tool that does not exist, or whose arguments are no JSON, is recorded as a failed one."""
        team = team_of(self.agent_id)
        if isinstance(error, Exception) and team is not None:
            team.causes.append(error)
        if isinstance(error, getattr(sys.modules.get("autogen_core.tool_agent"), "ToolException", ())):
            if self.span is not None and self.recorder.is_tentative(self.span):
                self._record_failed_tool(error)
            error = None
        super().end(error)

    @guarded
    def _record_failed_tool(self, error: Any) -> None:
        attributes = tool_attributes(error.name, error.call_id)
        tool = self.recorder.start("tool", error.name, parent=self.inner, attributes=attributes)
        self.recorder.end(tool, Failure(type="tool_error", message=error.content))


stack: SpanStack[OwnerFrame] = SpanStack("autogen")
_teams: WeakValueDictionary[str, OwnerFrame] = WeakValueDictionary()
_tasks: ContextVar[set[asyncio.Task[Any]]] = ContextVar("agentlightning_autogen_tasks", default=set())  # noqa: B039


class HookedCall:
    """A call of a hooked method: in a frame that was begun for it (``is_outermost``), or in that of the method of the
    same object which called it.

    ``read`` takes what came out of it: of a stream each item (``reads_all``), or the last alone.
    """

    __slots__ = ("_read", "frame", "is_outermost", "reads_all")

    def __init__(
        self, frame: OwnerFrame, is_outermost: bool, read: Callable[[OwnerFrame, Any], None] | None, reads_all: bool
    ) -> None:
        self.frame = frame
        self.is_outermost = is_outermost
        self.reads_all = reads_all
        self._read = read

    def __enter__(self) -> None:
        if self.is_outermost:
            stack.push(self.frame)

    def __exit__(self, *_: object) -> None:
        if self.is_outermost:
            stack.pop(self.frame)

    @guarded
    def read(self, result: Any) -> None:
        if self._read is not None:
            self._read(self.frame, result)

    def end(self, error: BaseException | None = None) -> None:
        if self.is_outermost:
            self.frame.end(error)


def begin_call(
    owner: Any,
    kind: SpanKind,
    name: str,
    attributes: dict[str, Any],
    read: Callable[[OwnerFrame, Any], None] | None = None,
    *,
    agent: str | None = None,
    reads_all: bool = False,
) -> HookedCall | None:
    """A method of ``owner`` is called; it has a span unless it is ``owner`` that runs here. None outside a rollout."""
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    parent = stack.innermost(recorder)
    if parent is not None and parent.owner is owner:
        return HookedCall(parent, False, read, reads_all)
    # A message handler that only has an agent answer is no agent itself; one that runs a tool is.
    base = _base(recorder, parent) if kind == "agent" or parent is None else innermost(parent.inner)
    span = recorder.start(kind, name, parent=base, agent=agent, attributes=attributes)
    return HookedCall(OwnerFrame(recorder, parent, base, span, owner=owner), True, read, reads_all)


def keep_team(key: str, frame: OwnerFrame) -> None:
    """Keeps a team's frame to be found by its key in the runtime, as long as it runs."""
    _teams[key] = frame


def team_of(agent_id: Any) -> OwnerFrame | None:
    """The running team that an agent of the runtime belongs to."""
    team = _teams.get(agent_id.key)
    return team if team is not None and not team.ended else None


def handling(agent_id: Any, context: AbstractContextManager[None]) -> AbstractContextManager[None]:
    """``context``, in which an agent of the runtime handles a message, with a frame of its own where it belongs to a
    rollout."""
    team = team_of(agent_id)
    recorder = team.recorder if team is not None else current()
    if recorder is None or recorder.closed:
        return context
    around = stack.innermost(recorder)
    parent = around if team is None or (around is not None and around.within(team)) else team
    base = _base(recorder, parent)
    name = agent_id.type.removesuffix(f"_{agent_id.key}")
    attributes = agent_attributes("manager" if team is not None else "agent")
    span = recorder.start("agent", name, parent=base, agent=name, attributes=attributes, tentative=True)
    return _handle(MessageFrame(recorder, parent, base, span, agent_id=agent_id), context)


@contextmanager
def _handle(frame: MessageFrame, context: AbstractContextManager[None]) -> Iterator[None]:
    in_rollout = nullcontext() if current() is frame.recorder else recording(frame.recorder)
    tasks, task = _tasks.get(), asyncio.current_task()
    error: BaseException | None = None
    with context, in_rollout:
        stack.push(frame)
        if task is not None:
            tasks.add(task)
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            if task is not None:
                tasks.discard(task)
            stack.pop(frame)
            frame.end(error)


def collect_tasks() -> set[asyncio.Task[Any]]:
    """Begins to collect the tasks that handle messages for what is started here; each leaves when it is done."""
    tasks: set[asyncio.Task[Any]] = set()
    _tasks.set(tasks)
    return tasks


def root_cause(error: BaseException) -> BaseException:
    """What a participant raised, where a team has made a ``RuntimeError`` with its type and traceback as text of it."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None and _is_text_of(error, error.__cause__):
        error = error.__cause__
    return error


def _is_text_of(error: RuntimeError, cause: BaseException) -> bool:
    """Whether a team made ``error`` of ``cause``."""
    return str(error).startswith(f"{type(cause).__name__}: {cause}\nTraceback:")


def _base(recorder: Recorder, frame: OwnerFrame | None) -> Span | None:
    """The span that an agent's hangs under: not that of a message's handling in which nothing else has begun."""
    if frame is None:
        return locate(recorder)
    is_idle = isinstance(frame, MessageFrame) and frame.span is not None and recorder.is_tentative(frame.span)
    return innermost(frame.base if is_idle else frame.inner)
