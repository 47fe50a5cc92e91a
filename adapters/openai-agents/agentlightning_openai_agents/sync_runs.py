"""``Runner.run_sync`` in a rollout: on the process's one event loop.

Rollouts that are plain functions run in threads, each of which would have an event loop of its own; and the ``openai``
client of an agent, once it has seen one loop, fails on another.
"""

from __future__ import annotations

import asyncio
from typing import Any

from agents import Runner

from agentlightning.recording import current
from agentlightning.threads import run_on_process_loop

_NAME = "run_sync"
_original: Any = None
_ours: Any = None


def install() -> None:
    """Puts our ``run_sync`` in the place of the SDK's, which it calls outside of a rollout."""
    global _original, _ours
    if _ours is not None:
        return
    original = vars(Runner)[_NAME]

    def run_sync(cls: type[Runner], *args: Any, **kwargs: Any) -> Any:
        if current() is None or _in_a_loop():
            return original.__get__(None, cls)(*args, **kwargs)
        return run_on_process_loop(cls.run(*args, **kwargs))

    _original, _ours = original, classmethod(run_sync)
    setattr(Runner, _NAME, _ours)


def uninstall() -> None:
    """Puts the SDK's own back, unless somebody else has put theirs there since."""
    global _original, _ours
    if _ours is not None and vars(Runner)[_NAME] is _ours:
        setattr(Runner, _NAME, _original)
        _original = _ours = None


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
