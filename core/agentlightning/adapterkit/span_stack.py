"""Where in a framework the code that is running here belongs.

A `Frame` stands for something of the framework's that runs. Which frame runs here is kept in a context variable, so it
follows tasks and threads that copy the context; a framework that has a context of its own is asked by ``find``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentlightning.recording import Recorder, add_locator, remove_locator
from agentlightning.records import Span


@dataclass(slots=True, eq=False, weakref_slot=True)
class Frame:
    """An agent, a node, a tool, a call of a model … that runs.

    ``parent`` is the frame it runs in, ``base`` the span that it hangs under, ``span`` its own, where it has one.
    """

    recorder: Recorder
    parent: Any
    base: Span | None
    span: Span | None = None
    ended: bool = False
    below: Any = None
    """The frame that ran where it was pushed."""

    @property
    def inner(self) -> Span | None:
        """The span that what happens in it hangs under: its own, else the one above; that of a call of a model only as
        long as the call is expected."""
        if self.span is None or (self.span.kind == "llm" and not self.recorder.expects_call(self.span)):
            return self.base
        return self.span

    def within(self, other: Frame) -> bool:
        """Whether ``other`` is this frame or one that it runs in."""
        frame: Frame | None = self
        while frame is not None and frame is not other:
            frame = frame.parent
        return frame is other


F = TypeVar("F", bound=Frame)


class SpanStack(Generic[F]):
    """The frames of one framework.

    ``find`` says which frame runs here, where the framework itself knows; the innermost of that and the one that was
    pushed here counts.
    """

    def __init__(self, name: str, find: Callable[[Recorder], F | None] | None = None) -> None:
        self._top: ContextVar[F | None] = ContextVar(f"agentlightning_{name}", default=None)
        self._find = find

    def push(self, frame: F) -> None:
        """What happens here next happens in ``frame``, until it is popped; it may be pushed again then."""
        frame.below = self._top.get()
        self._top.set(frame)

    def pop(self, frame: F) -> list[F]:
        """Goes back to what ran here before ``frame`` was pushed, where it runs here. Returns the frames that were
        pushed here since and nobody popped, innermost first."""
        above: list[F] = []
        top = self._top.get()
        while top is not None and top is not frame:
            above.append(top)
            top = top.below
        if top is None:
            return []
        self._top.set(frame.below)
        return above

    def innermost(self, recorder: Recorder) -> F | None:
        """The innermost frame of a rollout that runs here. One that has ended runs no more, whoever still has its
        context: what the framework says counts then, else the frame that it ran in."""
        top = frame = self._top.get()
        while frame is not None and (frame.ended or frame.recorder is not recorder):
            frame = frame.parent
        found = self._find(recorder) if self._find is not None else None
        is_further_in = found is not None and (frame is None or frame is not top or found.within(frame))
        return found if is_further_in else frame

    def locate(self, recorder: Recorder) -> Span | None:
        """The span that what happens here hangs under; None outside of the framework."""
        frame = self.innermost(recorder)
        return frame.inner if frame is not None else None

    def install(self) -> None:
        """Has `agentlightning.recording.locate` ask this stack."""
        add_locator(self.locate)

    def uninstall(self) -> None:
        """Has it ask no more."""
        remove_locator(self.locate)
