"""Where runs, rollouts, spans, resources and metrics live."""

from __future__ import annotations

from collections.abc import Callable

from agentlightning.errors import PluginError, StoreError
from agentlightning.store.base import (
    Checkpoint,
    CollectionSummary,
    Metric,
    Recorded,
    RunRecord,
    RunStatus,
    RunSummary,
    Store,
)

__all__ = [
    "Checkpoint",
    "CollectionSummary",
    "Metric",
    "Recorded",
    "RunRecord",
    "RunStatus",
    "RunSummary",
    "Store",
    "open_store",
]


def open_store(url: str) -> Store:
    """The store at a URL, chosen by its scheme: ``sqlite:///path`` is the embedded one.

    Raises `StoreError` when no installed plugin knows the scheme, or the store cannot be opened.
    """
    from agentlightning.plugins import plugins

    scheme, separator, _ = url.partition("://")
    if not separator:
        raise StoreError(f"store {url!r} is no URL: write sqlite:///{url} for a file")
    try:
        opener: Callable[[str], Store] = plugins().find("stores", scheme)
    except PluginError as error:
        raise StoreError(f"store {url!r}: {error}") from error
    return opener(url)
