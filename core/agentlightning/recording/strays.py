"""Which rollouts run now, and the model calls made meanwhile that belong to none of them: a stray call.

Nobody records a stray call and no policy answers it, so it is said where it was made; and where a running rollout has
resources, as in training, it is an error, raised before anything is sent.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agentlightning.errors import RedirectError
from agentlightning.records import Record
from agentlightning.tracebacks import caller

if TYPE_CHECKING:
    from agentlightning.recording.recorder import Recorder

logger = logging.getLogger(__name__)

is_outside: contextvars.ContextVar[bool] = contextvars.ContextVar("agentlightning_is_outside", default=False)
"""Whether what is done here was declared to belong to no rollout."""
_active: dict[Recorder, int] = {}
"""The recorders of rollouts that run now, and in how many blocks of `recording` each is."""
_strays: dict[tuple[str, str, str], StrayCall] = {}
_lock = threading.Lock()


class StrayCall(Record, kw_only=True):
    """A place that made model calls which belong to no rollout while rollouts ran."""

    model: str
    host: str
    """Where the calls were for."""
    location: str
    """``file:line`` of the user's code; the thread's name where a library's own thread made them."""
    count: int = 1
    refused: bool
    """Whether they raised an error, since a running rollout had resources, and were not sent."""


def stray_calls() -> list[StrayCall]:
    """The stray calls of this process so far, one entry a location, model and host."""
    with _lock:
        return list(_strays.values())


def active() -> list[Recorder]:
    """The recorders of the rollouts that run now in this process."""
    return list(_active)


def any_active() -> bool:
    """Whether a rollout runs now in this process."""
    return bool(_active)


@contextmanager
def running(recorder: Recorder) -> Iterator[None]:
    """A rollout runs inside the block."""
    with _lock:
        _active[recorder] = _active.get(recorder, 0) + 1
    try:
        yield
    finally:
        with _lock:
            _active[recorder] -= 1
            if not _active[recorder]:
                del _active[recorder]


@contextmanager
def outside() -> Iterator[None]:
    """Declares that model calls made inside the block belong to no rollout, although some run: a reward's judge, say,
    or another part of the program. A rollout that begins inside is one all the same."""
    token = is_outside.set(True)
    try:
        yield
    finally:
        is_outside.reset(token)


def belongs_to_none(model: str | None, host: str) -> None:
    """Notes a model call that is about to be made in no rollout: nothing where none runs, or where that is as declared.

    Raises `RedirectError` where a running rollout has resources; else warns, once for each place.
    """
    if is_outside.get() or all(recorder.is_live for recorder in active()):
        return
    refused = any(recorder.resources for recorder in active())
    stray = StrayCall(
        model=model or "(no model)",
        host=host,
        location=caller() or f"thread {threading.current_thread().name}",
        refused=refused,
    )
    key = (stray.location, stray.model, stray.host)
    with _lock:
        known = _strays.setdefault(key, stray)
        if known is not stray:
            known.count += 1
            known.refused = refused
    what = (
        f"a call of {stray.model} at {stray.host}, made in {stray.location}, belongs to no rollout while rollouts run: "
        "it was made in a thread or task that none of them began"
    )
    advice = (
        "make it in the agent's own function, or in a thread, task or executor's call that the agent begins; what is "
        "no part of an agent goes in `with agentlightning.recording.outside():`"
    )
    if known is stray:
        then = "it was not sent" if refused else f"it is sent, and not recorded. To have it recorded, {advice}"
        logger.error("%s; %s", what, then)
    if refused:
        raise RedirectError(
            f"{what}. It was not sent, since no policy, prompt or model could be chosen for it: {advice}"
        )


def _in_forked_process() -> None:
    for recorder in _active:
        recorder.forked = True
    _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
