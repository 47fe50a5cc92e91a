"""Looking at an agent without running it: a walk through what it holds, for adapters that describe agents."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

MAX_OBJECTS = 5000


@dataclass
class Found:
    """What an agent holds, each thing once, in the order of the walk."""

    models: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


def walk(
    agent: Any, note: Callable[[Found, str, Any], None], parts: Callable[[Any], Iterable[tuple[str, Any]]]
) -> Found:
    """Walks from ``agent`` through everything that ``parts(value)`` names, breadth first.

    ``note(found, name, value)`` writes what it recognises. What cannot be looked into is left out.
    """
    found = Found()
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([("", agent)])
    while waiting and len(seen) < MAX_OBJECTS:
        name, value = waiting.popleft()
        if id(value) in seen and type(value) is not str:
            continue
        seen.add(id(value))
        try:
            note(found, name, value)
            waiting.extend(parts(value))
        except Exception:
            logger.debug("could not look into %r", name, exc_info=True)
    return found


def add(names: list[str], name: str) -> None:
    """Adds a name that is not there yet."""
    if name not in names:
        names.append(name)
