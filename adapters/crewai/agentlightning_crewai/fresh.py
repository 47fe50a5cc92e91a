"""A copy of an agent's own for each rollout: what one rollout says, remembers or uses up, no other sees."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from agentlightning.errors import AdapterError

logger = logging.getLogger(__name__)

STORES = ("lancedb", "qdrant-edge")
"""Values of a memory's ``storage`` that name a kind of store; any other text is the path of one."""


@contextmanager
def fresh_crew(crew: Any) -> Iterator[Any]:
    """CrewAI's own copy of a crew, with tools and memory that are no one else's.

    Agents that only a task knows are copied with the crew's.
    """
    known = {id(agent) for agent in crew.agents}
    strangers = [task.agent for task in crew.tasks if task.agent is not None and id(task.agent) not in known]
    strangers = list({id(agent): agent for agent in strangers}.values())
    # Without knowledge: a crew that is made with sources embeds them all, and nobody writes to what is embedded.
    whole = crew.model_copy(update={"agents": [*crew.agents, *strangers], "knowledge_sources": None, "knowledge": None})
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
            new.tools = _own_tools(old.tools, agents)
        _separate_stores(crew, copy, memories)
        yield copy


@contextmanager
def fresh_agent(agent: Any) -> Iterator[Any]:
    """CrewAI's own copy of an agent, with tools and memory that are no one else's."""
    with _Memories() as memories:
        copy = agent.copy()
        _separate_agent(agent, copy, {id(agent): copy}, memories)
        yield copy


@contextmanager
def fresh_flow(flow: Any) -> Iterator[Any]:
    """A new flow of the same class, with the fields that were given to this one, and memory that is no one else's.

    Raises `AdapterError` when the class needs more than that.
    """
    kind = flow if isinstance(flow, type) else type(flow)
    with _Memories() as memories:
        try:
            original = _made(flow) if isinstance(flow, type) else flow
            copy = kind(**_given(original, memories))
        except Exception as error:
            raise AdapterError(
                f"a flow of the class {kind.__name__!r} cannot be made anew for a rollout ({error}): name the class, "
                "or a function (input) -> output that makes the flow and kicks it off"
            ) from error
        if getattr(copy, "memory", None) is not None:
            copy.memory = memories.own(original.memory)
        yield copy


@cache
def _made(kind: type) -> Any:
    return kind()


def _given(flow: Any, memories: _Memories) -> dict[str, Any]:
    """The fields of a flow that were set by whoever made it; with a memory, so that the copy need not open one."""
    fields = getattr(type(flow), "model_fields", {})
    given = {name: getattr(flow, name) for name in getattr(flow, "model_fields_set", ()) if name in fields}
    if "memory" in fields and flow.memory is not None:
        given["memory"] = memories.own(flow.memory)
    return given


def _separate_agent(old: Any, new: Any, agents: dict[int, Any], memories: _Memories) -> None:
    new.tools = _own_tools(old.tools, agents)
    if getattr(old, "memory", None):
        new.memory = memories.own(old.memory)


def _separate_stores(crew: Any, copy: Any, memories: _Memories) -> None:
    # Private names, checked with crewai 1.11.0 and 1.15.30. The public ``memory`` may be True, which means the one in
    # ``_memory``; where outputs of tasks are kept cannot be said, and all crews of a machine share one file.
    if getattr(crew, "_memory", None) is not None:
        copy.memory = copy._memory = memories.own(crew._memory)
    if hasattr(copy, "_task_output_handler"):
        copy._task_output_handler = _Unkept()


class _Unkept:
    """In place of the file with the outputs of the last kickoff's tasks, which ``crewai replay`` reads."""

    def reset(self) -> None:
        pass

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        pass

    def load(self) -> list[dict[str, Any]]:
        return []


def _own_tools(tools: Iterable[Any] | None, agents: dict[int, Any]) -> list[Any]:
    return [_own_tool(tool, agents) for tool in tools or ()]


def _own_tool(tool: Any, agents: dict[int, Any]) -> Any:
    """A copy of a tool: its count of uses begins anew, and it delegates to the copies of its agents."""
    if not hasattr(tool, "model_copy"):
        return tool
    copy = tool.model_copy()
    if getattr(copy, "current_usage_count", 0):
        copy.current_usage_count = 0
    if isinstance(getattr(copy, "agents", None), list):
        copy.agents = [agents.get(id(agent), agent) for agent in copy.agents]
    return copy


class _Memories:
    """The memories of one rollout, each in a folder that goes with it."""

    def __init__(self) -> None:
        self._owned: dict[int, Any] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> _Memories:
        return self

    def __exit__(self, *_: object) -> None:
        for memory in self._owned.values():
            if hasattr(memory, "close"):
                memory.close()
        if self._folder is not None:
            self._folder.cleanup()

    def own(self, memory: Any) -> Any:
        """A memory with the same settings: empty, or a copy of the store at the path that was given to it. One that is
        read only, or that cannot be copied, is shared."""
        if getattr(memory, "read_only", False):
            return memory
        storage = getattr(memory, "storage", None)
        if not isinstance(storage, str) or not hasattr(memory, "model_fields_set"):
            _warn_of_shared(type(memory).__name__)
            return memory
        if id(memory) not in self._owned:
            settings = {name: getattr(memory, name) for name in type(memory).model_fields}
            self._owned[id(memory)] = type(memory)(**{**settings, "storage": self._place(storage)})
        return self._owned[id(memory)]

    def _place(self, storage: str) -> str:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="agentlightning-memory-", ignore_cleanup_errors=True)
        place = Path(self._folder.name) / str(len(self._owned))
        if storage not in STORES and Path(storage).is_dir():
            shutil.copytree(storage, place)
        return str(place)


@cache
def _warn_of_shared(kind: str) -> None:
    logger.warning(
        "a %s that is a view, or has a storage of its own, cannot be copied: what one rollout remembers in it, others "
        "see; give memory=True, or a Memory with a path",
        kind,
    )
