"""How graphs and chains are run: what is recorded of a deployed one."""

from __future__ import annotations

from typing import Any

from agentlightning.adapterkit.entry_points import EntryPoint, argument


def _plain(value: Any) -> Any:
    from agentlightning_langgraph.serialize import plain

    return plain(value)


def _input(owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _plain(argument(0, "input")(owner, args, kwargs))


METHODS = ("invoke", "ainvoke", "stream", "astream")

ENTRY_POINTS = (
    EntryPoint("langgraph.pregel", "Pregel", METHODS, _input, _plain),
    EntryPoint("langchain_core.runnables.base", "RunnableSequence", METHODS, _input, _plain),
)
