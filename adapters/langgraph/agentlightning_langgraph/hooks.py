"""Where LangChain is hooked into: the handler of its callbacks, and its cache of answers."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, cast

from langchain_core.tracers.context import register_configure_hook

from agentlightning.recording import add_locator, current, remove_locator
from agentlightning_langgraph import answer_cache
from agentlightning_langgraph.handler import RecordingHandler, handler
from agentlightning_langgraph.runs import locator


class _HandlerOfRollouts:
    """Stands in for the context variable that LangChain's configure hook asks for a handler, before it begins anything:
    there is one in a rollout, and elsewhere none, so that nothing is dispatched there."""

    def get(self) -> RecordingHandler | None:
        if not handler.installed or current() is None:
            return None
        answer_cache.install()
        return handler


_registered = False


def install() -> None:
    """Registers the handler, once per process, and the locator."""
    global _registered
    if not _registered:
        register_configure_hook(cast("ContextVar[Any]", _HandlerOfRollouts()), inheritable=True)
        _registered = True
    handler.installed = True
    add_locator(locator)


def uninstall() -> None:
    """Switches the handler off, which LangChain cannot unregister, and removes the locator."""
    handler.installed = False
    answer_cache.uninstall()
    remove_locator(locator)
