"""A copy of the agent for each rollout: no rollout sees the messages and memories of another, or uses up its tools."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from agentlightning.errors import AdapterError
from agentlightning_crewai import internals

logger = logging.getLogger(__name__)

STORES = ("lancedb", "qdrant-edge")
"""Values of a memory's ``storage`` that name a kind of store; any other text is the path of one."""


@contextmanager
def isolated_crew(crew: Any) -> Iterator[Any]:
    """CrewAI's own copy of a crew, with tools and memory that are no one else's.

    Agents that only a task knows are copied with the crew's.
    """
    known = {id(agent) for agent in crew.agents}
    others = [task.agent for task in crew.tasks if task.agent is not None and id(task.agent) not in known]
    others = list({id(agent): agent for agent in others}.values())
    # Without knowledge: a crew that is made with sources embeds them all, and nobody writes to what is embedded.
    whole = crew.model_copy(update={"agents": [*crew.agents, *others], "knowledge_sources": None, "knowledge": None})
    with _Memories() as memories:
        copy = whole.copy()
        agents = {id(old): new for old, new in zip(whole.agents, copy.agents, strict=True)}
        copy.agents = copy.agents[: len(crew.agents)]
        copy.knowledge_sources, copy.knowledge = crew.knowledge_sources, crew.knowledge
        originals = list(whole.agents)
        if crew.manager_agent is not None:
            agents[id(crew.manager_agent)] = copy.manager_agent
            originals.append(crew.manager_agent)
        for agent in originals:
            _separate_agent(agent, agents[id(agent)], agents, memories)
        for old, new in zip(crew.tasks, copy.tasks, strict=True):
            new.agent = agents.get(id(old.agent), new.agent)
            new.tools = _isolated_tools(old.tools, agents)
        memory = internals.memory_of(crew)
        if memory is not None:
            internals.set_memory(copy, memories.isolate(memory))
        internals.forget_outputs(copy)
        yield copy


@contextmanager
def isolated_agent(agent: Any) -> Iterator[Any]:
    """CrewAI's own copy of an agent, with tools and memory that are no one else's."""
    with _Memories() as memories:
        copy = agent.copy()
        _separate_agent(agent, copy, {id(agent): copy}, memories)
        yield copy


@contextmanager
def isolated_flow(flow: Any) -> Iterator[Any]:
    """A new flow of the same class, with the fields that were given to this one, and memory that is no one else's.

    Raises `AdapterError` when the class needs more than that.
    """
    kind = flow if isinstance(flow, type) else type(flow)
    with _Memories() as memories:
        try:
            original = _instance_of(flow) if isinstance(flow, type) else flow
            copy = kind(**_set_fields(original, memories))
        except Exception as error:
            raise AdapterError(
                f"a flow of the class {kind.__name__!r} cannot be made anew for a rollout ({error}): name the class, "
                "or a function (input) -> output that makes the flow and kicks it off"
            ) from error
        if getattr(copy, "memory", None) is not None:
            copy.memory = memories.isolate(original.memory)
        yield copy


@cache
def _instance_of(kind: type) -> Any:
    return kind()


def _set_fields(flow: Any, memories: _Memories) -> dict[str, Any]:
    """The fields of a flow that were set by whoever made it; with a memory, so that the copy need not open one."""
    fields = getattr(type(flow), "model_fields", {})
    values = {name: getattr(flow, name) for name in getattr(flow, "model_fields_set", ()) if name in fields}
    if "memory" in fields and flow.memory is not None:
        values["memory"] = memories.isolate(flow.memory)
    return values


def _separate_agent(old: Any, new: Any, agents: dict[int, Any], memories: _Memories) -> None:
    new.tools = _isolated_tools(old.tools, agents)
    if getattr(old, "memory", None):
        new.memory = memories.isolate(old.memory)


def _isolated_tools(tools: Iterable[Any] | None, agents: dict[int, Any]) -> list[Any]:
    return [_isolated_tool(tool, agents) for tool in tools or ()]


def _isolated_tool(tool: Any, agents: dict[int, Any]) -> Any:
    """A copy of a tool: its count of uses begins anew, and it delegates to the copies of its agents."""
    if not hasattr(tool, "model_copy"):
        return tool
    copy = tool.model_copy()
    if getattr(copy, "current_usage_count", 0):
        copy.current_usage_count = 0
    if isinstance(getattr(copy, "agents", None), list):
        copy.agents = [agents.get(id(agent), agent) for agent in copy.agents]
    return copy


class _Memories(ExitStack):
    """The memories of one rollout, in a folder that is deleted with it."""

    def __init__(self) -> None:
        super().__init__()
        self._copies: dict[int, Any] = {}
        self._folder: Path | None = None

    def isolate(self, memory: Any) -> Any:
        """A memory with the same settings: empty, or a copy of the store at the path that was given to it. One that is
        read only, or that cannot be copied, is shared."""
        if getattr(memory, "read_only", False):
            return memory
        storage = getattr(memory, "storage", None)
        if not isinstance(storage, str) or not hasattr(memory, "model_fields_set"):
            _warn_of_shared(type(memory).__name__)
            return memory
        if id(memory) not in self._copies:
            settings = {name: getattr(memory, name) for name in type(memory).model_fields}
            copy = type(memory)(**{**settings, "storage": self._copy_store(storage)})
            if hasattr(copy, "close"):
                self.callback(copy.close)
            self._copies[id(memory)] = copy
        return self._copies[id(memory)]

    def _copy_store(self, storage: str) -> str:
        if self._folder is None:
            made = tempfile.TemporaryDirectory(prefix="agentlightning-memory-", ignore_cleanup_errors=True)
            self._folder = Path(self.enter_context(made))
        folder = self._folder / str(len(self._copies))
        if storage not in STORES and Path(storage).is_dir():
            shutil.copytree(storage, folder)
        return str(folder)


@cache
def _warn_of_shared(kind: str) -> None:
    logger.warning(
        "a %s that is a view, or has a storage of its own, cannot be copied: what one rollout remembers in it, others "
        "see; give memory=True, or a Memory with a path",
        kind,
    )
