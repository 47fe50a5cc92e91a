"""The one place that hooks into CrewAI: its event bus.

Handlers that are registered with the bus run in a pool of threads, after what they tell of has gone on, and out of
order; nothing there says where a model call is being made. ``CrewAIEventsBus.emit``, which everything of CrewAI's
calls, runs in the context of what it tells of, so that is what is wrapped. Checked with crewai 1.11.0 and 1.15.30.
"""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

from agentlightning.recording import add_locator, guarded, remove_locator
from agentlightning_crewai.places import locator
from agentlightning_crewai.spans import TOLD, seen

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_patch: _Patch | None = None
_see = guarded(seen)


class _Patch:
    """``emit`` of a class, replaced; ``remove`` puts back the very function that was there."""

    def __init__(self, owner: type) -> None:
        self.owner = owner
        self.original: Any = owner.__dict__["emit"]
        self.active = True

        @functools.wraps(self.original)
        def emit(bus: Any, source: Any, event: Any) -> Any:
            if self.active and event.type in TOLD:
                _see(source, event)
            return self.original(bus, source, event)

        self.wrapper = emit
        type.__setattr__(owner, "emit", emit)

    def remove(self) -> None:
        self.active = False
        if self.owner.__dict__.get("emit") is self.wrapper:
            type.__setattr__(self.owner, "emit", self.original)
        else:
            logger.warning("the event bus was patched by someone else as well, later; ours stays under it, off")


def install() -> None:
    """Listens, once, and adds the locator. Without a bus to listen to: a warning, and no hooks."""
    global _patch
    with _lock:
        if _patch is not None:
            return
        try:
            from crewai.events.event_bus import CrewAIEventsBus

            _patch = _Patch(CrewAIEventsBus)
        except (ImportError, KeyError) as error:
            logger.warning(
                "CrewAI's event bus cannot be listened to (%s): its agents, tools and hand-offs are not recorded, only "
                "its model calls",
                error,
            )
            return
        add_locator(locator)


def uninstall() -> None:
    """Puts the bus back as it was, and removes the locator."""
    global _patch
    with _lock:
        if _patch is None:
            return
        _patch.remove()
        _patch = None
        remove_locator(locator)
