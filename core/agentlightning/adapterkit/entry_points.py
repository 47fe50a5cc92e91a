"""Where a framework's users run its agents: the methods that are wrapped while deployed agents are recorded.

An adapter says which methods those are, and how their input and output are read; what comes of a call is
`agentlightning.recording.top_level`'s. Nothing is wrapped in a process that nobody attached.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from agentlightning.adapterkit.serialize import plain
from agentlightning.importing import forget, when_imported
from agentlightning.patching import Patches
from agentlightning.recording.top_level import Call, followed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntryPoint:
    """Methods of one class that run an agent.

    ``read_input`` is given the object, or the class of a class method, and the arguments; ``ends_with`` what the method
    returned, where the run goes on after that.
    """

    module: str
    owner: str
    methods: tuple[str, ...]
    read_input: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
    read_output: Callable[[Any], Any] = plain
    ends_with: Callable[[Any], asyncio.Future[Any] | None] | None = None


def argument(index: int, *names: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]:
    """Reads an argument by its place or one of its names; None where it is not given."""

    def read(owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) > index:
            return args[index]
        return next((kwargs[name] for name in names if name in kwargs), None)

    return read


class EntryPoints:
    """The entry points of some adapters: wrapped as soon as their framework is imported."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._patches = Patches()
        self._hooks = [(point.module, partial(self._wrap, point)) for point in points]

    def install(self) -> None:
        """Wraps them now, where their modules are imported, else right after they are."""
        for module, hook in self._hooks:
            when_imported(module, hook)

    def uninstall(self) -> None:
        """Puts the methods back, and waits for no import any more."""
        for module, hook in self._hooks:
            forget(module, hook)
        self._patches.remove()

    def _wrap(self, point: EntryPoint) -> None:
        owner = getattr(sys.modules[point.module], point.owner, None)
        there = [] if owner is None else [(kind, name) for name in point.methods for kind in _definer(owner, name)]
        if not there:
            logger.warning(
                "%s.%s has none of %s: its runs are recorded only inside `with agl.live(…)`",
                *(point.module, point.owner, ", ".join(point.methods)),
            )
            return
        self._patches.add(*((kind, name, partial(_followed, point)) for kind, name in there))


def _definer(owner: type, name: str) -> list[type]:
    """The class that an object's method of this name comes from, where it has one."""
    return [kind for kind in owner.__mro__ if name in vars(kind)][:1]


def _followed(
    point: EntryPoint, method: Callable[..., Any], owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    call = Call(
        read_input=lambda: plain(point.read_input(owner, args, kwargs)),
        read_output=point.read_output,
        ends_with=point.ends_with,
    )
    return followed(method, call, args, kwargs)
