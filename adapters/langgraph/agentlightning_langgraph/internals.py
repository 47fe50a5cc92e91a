"""What is read of LangChain that it does not promise. Checked with langchain-core 1.0.0 and 1.7.2."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any
from uuid import UUID

logger = logging.getLogger(__name__)

# LangGraph uses it, too: there is no public way to ask which run is running here.
try:
    from langchain_core.runnables.config import var_child_runnable_config as _child_config
except ImportError:
    logger.warning("this langchain-core has no var_child_runnable_config: model calls are not placed under their node")
    _child_config = ContextVar("child_runnable_config", default=None)


def running_id() -> UUID | None:
    """The id of the innermost run that LangChain knows to be running here: of a chain, graph, node or tool."""
    config: Any = _child_config.get()
    return getattr(config.get("callbacks"), "parent_run_id", None) if config else None
