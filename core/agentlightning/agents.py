"""The agent that is trained: found, and matched with the adapter that runs it."""

from __future__ import annotations

from typing import Any

from agentlightning.adapter import Adapter
from agentlightning.errors import AdapterError
from agentlightning.function_adapter import FunctionAdapter, check_takes_input
from agentlightning.loading import is_call, load, make
from agentlightning.plugins import Plugins


def hook_in_adapters(loaded: Plugins) -> list[Adapter]:
    """Every adapter that works, hooked in: before the agent's module is imported, for whatever of it. Twice is as good
    as once."""
    adapters = loaded.adapters()
    for adapter in adapters:
        adapter.prepare()
        adapter.install()
    return adapters


def load_agent(agent: Any, loaded: Plugins) -> tuple[Any, Adapter]:
    """The agent object and the adapter that runs it, every adapter hooked in before the agent is imported.

    Only ``module:attribute()``, with the parentheses, calls what it names (a factory, or a class), once. Raises
    `ConfigError` where that fails, and `AdapterError` where there is nothing that an adapter can run.
    """
    adapters = hook_in_adapters(loaded)
    found = agent
    if isinstance(agent, str):
        found = make(agent) if is_call(agent) else load(agent)
    chosen = next((adapter for adapter in adapters if adapter.accepts(found)), None)
    if chosen is None or isinstance(chosen, FunctionAdapter):
        check_takes_input(found, agent if isinstance(agent, str) else None)
    if chosen is None:
        raise AdapterError(
            f"no installed adapter runs {agent if isinstance(agent, str) else type(agent).__name__!r} "
            f"(a {type(found).__module__}.{type(found).__qualname__}); installed: "
            f"{', '.join(adapter.name for adapter in adapters)}. `agl init` names the package that does."
        )
    return found, chosen
