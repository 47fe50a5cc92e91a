"""What is to be done once a module has been imported: at once where it is, else as soon as it is."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

Hook = Callable[[], None]

_waiting: dict[str, list[Hook]] = {}
_lock = threading.Lock()


def when_imported(module: str, hook: Hook) -> None:
    """Calls ``hook`` now where the module is imported, else right after it is, before whoever imports it goes on.

    A hook that waits already waits once. Its errors are logged, and never reach an import.
    """
    if sys.modules.get(module) is not None:
        _call(module, hook)
        return
    with _lock:
        is_first = module not in _waiting
        hooks = _waiting.setdefault(module, [])
        if hook not in hooks:
            hooks.append(hook)
    if is_first:
        import wrapt  # takes 20 ms, which `agl --help` can do without

        wrapt.register_post_import_hook(lambda _: _imported(module), module)


def forget(module: str, hook: Hook) -> None:
    """A hook that waits no longer does."""
    with _lock:
        if hook in _waiting.get(module, ()):
            _waiting[module].remove(hook)


def _imported(module: str) -> None:
    with _lock:
        hooks = _waiting.pop(module, [])
    for hook in hooks:
        _call(module, hook)


def _call(module: str, hook: Hook) -> None:
    try:
        hook()
    except Exception:
        logger.exception("%s was imported, and could not be hooked into", module)
