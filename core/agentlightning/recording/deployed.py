"""``agl.live``: a part of a deployed program that is one run of its agent, for programs without a framework."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, TypeVar, overload

from agentlightning.recording.api import span
from agentlightning.recording.context import current
from agentlightning.recording.top_level import Call, TopLevelRun, followed, open_run

F = TypeVar("F", bound=Callable[..., Any])


def current_rollout() -> str | None:
    """The id of the rollout that is recorded here; None outside, and where it is not recorded. It is what
    ``POST /v1/feedback`` of a Lightning Server takes."""
    recorder = current()
    return recorder.rollout_id if recorder is not None and recorder.is_kept and not recorder.closed else None


class LiveBlock:
    """One run of the agent ``name`` on ``input``, as a block or as the body of a function::

        with agl.live("support", input=question) as run:
            run.output = answer(question)
        reply(run.output, feedback_id=run.rollout_id)

    Recorded while `agentlightning.attach` is; in a rollout that is active it is a span of that.
    """

    def __init__(self, name: str, *, input: Any = None) -> None:
        self.name = str(name)
        self.input = input
        self.output: Any = None
        """The agent's answer."""
        self.rollout_id: str | None = None
        """None where the run is not recorded."""
        self._run: TopLevelRun | None = None
        self._left = ExitStack()

    def __call__(self, function: F) -> F:
        return _decorated(function, self.name)

    def __enter__(self) -> LiveBlock:
        self._run = open_run(lambda: self.input, self.name)
        inside: AbstractContextManager[Any] = (
            self._run.active() if self._run is not None else span(self.name, "agent", agent=self.name)
        )
        self._left.enter_context(inside)
        self.rollout_id = self._run.rollout_id if self._run is not None else current_rollout()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.__exit__(kind, error, trace)
        if self._run is not None:
            self._run.end(self.output, error)

    async def __aenter__(self) -> LiveBlock:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


@overload
def live(name: str, *, input: Any = None) -> LiveBlock: ...
@overload
def live(name: F) -> F: ...
def live(name: Any, *, input: Any = None) -> Any:
    """A run of a deployed agent: ``with agl.live("name", input=…) as run:``, ``@agl.live`` or ``@agl.live("name")``.

    Of a function, the input are its arguments (the one that it has, else by name) and the output what it returns, or
    yields last. Without `agentlightning.attach` nothing is recorded.
    """
    if callable(name):
        return _decorated(name, getattr(name, "__name__", type(name).__name__))
    return LiveBlock(name, input=input)


def _decorated(function: F, name: str) -> F:
    signature = _signature(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Any:
            call = Call(lambda: _input(signature, args, kwargs), lambda last: last, agent=name)
            return followed(function, call, args, kwargs)

        return stream  # type: ignore[return-value]
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with LiveBlock(name, input=_input(signature, args, kwargs)) as block:
                block.output = await function(*args, **kwargs)
                return block.output

        return run_async  # type: ignore[return-value]

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with LiveBlock(name, input=_input(signature, args, kwargs)) as block:
            block.output = function(*args, **kwargs)
            return block.output

    return run  # type: ignore[return-value]


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # of some that are written in C
        return None


def _input(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if signature is None:
        return None
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself will say what is wrong with it
        return None
    given.pop("self", None)
    return next(iter(given.values())) if len(given) == 1 else dict(given)
