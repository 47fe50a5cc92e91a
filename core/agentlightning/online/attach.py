"""``agl.attach`` and ``agl.detach``."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentlightning import defaults
from agentlightning.adapterkit.entry_points import EntryPoint, EntryPoints
from agentlightning.errors import ConfigError
from agentlightning.loading import load
from agentlightning.online.buffer import Buffer
from agentlightning.online.production import NOTHING, Production
from agentlightning.online.rollout import LeftOut, LiveRollout, Unrecorded, is_sampled
from agentlightning.plugins import plugins
from agentlightning.recording.context import follow_work
from agentlightning.recording.strays import any_active
from agentlightning.recording.top_level import TopLevelRun, set_opener
from agentlightning.records import new_id
from agentlightning.redaction import begin_redacting, redact
from agentlightning.store.base import RunRecord

logger = logging.getLogger(__name__)

ALGORITHM = "live"
MAX_BUFFER = 256 * 1024**2
LEAST_BUFFER = 1024**2
MAX_NAME = 100
EXIT_SECONDS = 2.0
"""How long the end of a process waits for what was recorded to be written and handed over."""

_lock = threading.Lock()
_attached: _Attached | None = None


class _Attached:
    """What is in place while this process is attached."""

    def __init__(self, buffer: Buffer, *, sample: float, agent: str | None) -> None:
        self.buffer = buffer
        self.sample, self.agent = sample, agent
        self.entry_points = EntryPoints(_entry_points())
        self._failed = False

    def open(self, read_input: Callable[[], Any], agent: str | None) -> TopLevelRun:
        """Opens a run. An error of our own leaves it unrecorded, and is logged once."""
        try:
            rollout_id = new_id()
            given = self.buffer.production.given(rollout_id) if self.buffer.production is not None else NOTHING
            if self.buffer.production is not None:
                self.buffer.start()
            if not is_sampled(rollout_id, self.sample):
                return Unrecorded(rollout_id, given) if given.resources else LeftOut()
            self.buffer.start()
            name = self.agent if self.agent is not None else agent
            return LiveRollout(self.buffer, rollout_id, input=read_input(), agent=name, given=given)
        except Exception:
            if not self._failed:
                logger.exception("a run of the agent could not be recorded; it goes on")
            self._failed = True
            return LeftOut()


def attach(
    url: str,
    *,
    sample: float = 1.0,
    run: str = defaults.LIVE_RUN,
    apply: bool = False,
    agent: str | None = None,
    buffer: str | Path = defaults.LIVE_BUFFER,
    max_buffer: int = MAX_BUFFER,
) -> None:
    """Records the runs of agents in this process as rollouts of the live run ``run`` in the store at ``url``, which may
    be away: a Lightning Server, or any other.

    A run is what begins where none is active: a graph's ``invoke``, ``Runner.run``, a team's ``run``, a crew's
    ``kickoff``, `agl.live`. A share ``sample`` of them is recorded. ``agent`` is the name of the agent around each, in
    place of its own. What the store has not acknowledged lies in the folder ``buffer``, ``max_buffer`` bytes of each
    process at most; a run that does not fit is dropped whole, and counted.

    With ``apply`` the calls of all runs get what is in production for ``run`` (`agl promote`): prompts, models and
    endpoints, as they are promoted and rolled back; attaching waits for the store's word, two seconds at most. Where
    the store is away it is what was known last, from ``buffer``. A call that it cannot be applied to is sent as the
    agent made it.

    Raises `ConfigError` where an argument makes no sense or this process is attached elsewhere; nothing later reaches
    the agent.
    """
    global _attached
    _check(url, sample=sample, max_buffer=max_buffer)
    record = RunRecord(id=run_id(run), name=run, algorithm=ALGORITHM, status="live", created_at=time.time())
    folder = Path(buffer).absolute()
    production = Production(url, record.id, folder) if apply else None
    kept = Buffer(url, folder, record, max_bytes=max_buffer, production=production)
    with _lock:
        if _attached is not None:
            raise ConfigError(
                f"this process is attached to {redact(_attached.buffer.url)} already: call agl.detach() first"
            )
        begin_redacting()
        attached = _Attached(kept, sample=sample, agent=agent)
        for adapter in plugins().adapters():
            adapter.install()
        attached.entry_points.install()
        follow_work()
        kept.start()
        _attached = attached
        set_opener(attached.open)
    if production is not None:
        production.wait_until_asked()


def detach(timeout: float = 5.0) -> None:
    """Records no more runs, and hands over what it can within ``timeout`` seconds. What is left lies in the buffer, for
    the next process that attaches with it. Does nothing where this process is not attached."""
    global _attached
    with _lock:
        attached, _attached = _attached, None
        set_opener(None)
    if attached is None:
        return
    attached.entry_points.uninstall()
    attached.buffer.stop(timeout)
    if not any_active():  # else somebody trains here
        for adapter in plugins().adapters():
            adapter.uninstall()


def run_id(name: str) -> str:
    """The id of the live run of a name: the name itself, where it has no characters but letters, digits, ``.``, ``_``
    and ``-``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:MAX_NAME]
    return plain if plain == name else f"{plain}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}".strip("-")


def _check(url: str, *, sample: float, max_buffer: int) -> None:
    if "://" not in url:
        raise ConfigError(f"agl.attach: {url!r} is no URL: write http://HOST:PORT of a Lightning Server")
    if not 0.0 <= sample <= 1.0:
        raise ConfigError(f"agl.attach: sample is a share, 0 to 1, not {sample}")
    if max_buffer < LEAST_BUFFER:
        raise ConfigError(f"agl.attach: max_buffer is in bytes, {LEAST_BUFFER} at least, not {max_buffer}")


def _entry_points() -> list[EntryPoint]:
    found: list[EntryPoint] = []
    for adapter in plugins().adapters():
        if adapter.entry_points is not None:
            found += load(adapter.entry_points)
    return found


@atexit.register
def _at_exit() -> None:
    with _lock:
        attached = _attached
        set_opener(None)
    if attached is not None:
        attached.buffer.stop(EXIT_SECONDS)


def _in_forked_process() -> None:
    global _lock
    _lock = threading.Lock()
    if _attached is not None:
        _attached.buffer = _attached.buffer.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
