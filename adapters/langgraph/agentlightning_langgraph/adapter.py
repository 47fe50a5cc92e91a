"""Which LangGraph and LangChain objects are agents, and how to run one on a task's input."""

from __future__ import annotations

import uuid
from typing import Any
from weakref import WeakKeyDictionary

from agentlightning.adapter import Adapter
from agentlightning.adapterkit.typechecks import is_a
from agentlightning.errors import AdapterError
from agentlightning.recording import current


class LangGraphAdapter(Adapter):
    """Runs compiled LangGraph graphs and any other LangChain Runnable, with ``ainvoke``.

    LangGraph and LangChain are touched only when the agent's own code has imported them.
    """

    name = "langgraph"
    modules = ("langchain_core",)
    hooks = "agentlightning_langgraph.hooks"
    entry_points = "agentlightning_langgraph.entry_points:ENTRY_POINTS"
    versions = ("langchain-core", "1.0", "2")

    def accepts(self, agent: Any) -> bool:
        """True for a Runnable (a compiled graph is one), and for a graph that was not compiled: `run` says so."""
        return is_a(agent, "langchain_core.runnables", "Runnable") or _is_uncompiled(agent)

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs the agent and returns its final state as plain data (`agentlightning_langgraph.serialize`).

        A graph whose input has a ``messages`` key takes a string as one user message and a list as the
        messages; a dict is the graph's input as it is. Any other Runnable is given the input as it is.
        Each attempt of a rollout is a thread of its own for the graph's checkpointer.

        Raises `AdapterError` when the graph was not compiled, or its input cannot be made from the task's.
        """
        if _is_uncompiled(agent):
            raise AdapterError("the agent is a StateGraph that was not compiled: name the result of its .compile()")
        from agentlightning_langgraph.serialize import plain

        if not _is_graph(agent):
            return plain(await agent.ainvoke(input))
        config = {"configurable": {"thread_id": _thread_id()}} if agent.checkpointer else None
        return plain(await agent.ainvoke(_graph_input(agent, input), config))


def _is_graph(agent: Any) -> bool:
    return is_a(agent, "langgraph.pregel", "Pregel")


def _is_uncompiled(agent: Any) -> bool:
    return is_a(agent, "langgraph.graph", "StateGraph")


def _thread_id() -> str:
    recorder = current()
    return f"{recorder.rollout_id}-{recorder.attempt}" if recorder is not None else uuid.uuid4().hex


def _graph_input(graph: Any, input: Any) -> Any:
    if isinstance(input, dict):
        return input
    keys = _input_keys(graph)
    if keys is None:
        return input
    if "messages" in keys and isinstance(input, str):
        return {"messages": [("user", input)]}
    if "messages" in keys and isinstance(input, list):
        return {"messages": input}
    raise AdapterError(
        f"the graph {graph.get_name()!r} takes a mapping with the keys {', '.join(keys) or '(none)'}, and the task's "
        f"input is a {type(input).__name__}: give each task an input such as "
        f"{{{', '.join(f'{key!r}: …' for key in keys[:1])}}}"
    )


_known_keys: WeakKeyDictionary[Any, list[str] | None] = WeakKeyDictionary()


def _input_keys(graph: Any) -> list[str] | None:
    """The keys of the graph's input; None when the input is no mapping (a functional entrypoint, say). Asked once of
    each graph: LangGraph makes a schema for it, which takes longer than all the rest of a run without a model."""
    if graph not in _known_keys:
        _known_keys[graph] = _find_input_keys(graph)
    return _known_keys[graph]


def _find_input_keys(graph: Any) -> list[str] | None:
    try:
        schema = graph.get_input_jsonschema()
    except Exception:  # noqa: BLE001 - a state of types that have no JSON schema is a graph all the same
        return [name for name in graph.channels if not name.startswith(("__", "branch:"))]
    return list(schema["properties"]) if "properties" in schema else None
