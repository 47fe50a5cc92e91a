"""Methods of somebody else's classes, wrapped for as long as they are needed, and put back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""``(wrapped, instance, args, kwargs)``: called in the place of a method, ``wrapped`` being the method, bound."""


class Patches:
    """Methods that were wrapped together. They are wrapped with wrapt, as OpenTelemetry's instrumentations do, so what
    others have put in a method's place before, or put there later, is called as well."""

    def __init__(self) -> None:
        self._made: dict[tuple[type, str], _Patch] = {}
        self._lock = threading.Lock()

    @property
    def in_place(self) -> bool:
        """Whether the methods are wrapped now."""
        return len(self._made) > 0

    def add(self, *methods: tuple[type, str, Wrapper]) -> None:
        """Wraps methods that the classes themselves define, all of them or, where one is not there, none; each once.
        Raises `AttributeError`."""
        for owner, name, _ in methods:
            if name not in owner.__dict__:
                raise AttributeError(f"{owner.__module__}.{owner.__qualname__} defines no {name}")
        with self._lock:
            for owner, name, wrapper in methods:
                if (owner, name) not in self._made:
                    self._made[owner, name] = _Patch(owner, name, wrapper)

    def remove(self) -> None:
        """Puts back the very objects that were there. Where somebody else has wrapped a method since, ours stays under
        theirs, switched off, and that is said."""
        with self._lock:
            for patch in reversed(self._made.values()):
                patch.remove()
            self._made.clear()


class _Patch:
    def __init__(self, owner: type, name: str, wrapper: Wrapper) -> None:
        import wrapt  # takes 20 ms, which `agl --help` can do without

        self._owner, self._name = owner, name
        self._original = owner.__dict__[name]
        self._active = True
        self._ours = wrapt.FunctionWrapper(self._original, wrapper, enabled=lambda: self._active)
        setattr(owner, name, self._ours)

    def remove(self) -> None:
        self._active = False
        if self._owner.__dict__.get(self._name) is self._ours:
            setattr(self._owner, self._name, self._original)
        else:
            logger.warning(
                "%s.%s was patched by someone else as well, later; ours stays under it, switched off",
                self._owner.__qualname__,
                self._name,
            )
