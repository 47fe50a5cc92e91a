"""What an object is to CrewAI, without importing it."""

from __future__ import annotations

import sys
from typing import Any


def is_crew(agent: Any) -> bool:
    """Whether it is a ``Crew``."""
    return _is_a(agent, "crewai.crew", "Crew")


def is_crew_class(agent: Any) -> bool:
    """Whether it is an instance of a class that ``@CrewBase`` made, which has a method ``crew``."""
    return not isinstance(agent, type) and getattr(type(agent), "is_crew_class", False) is True


def is_agent(agent: Any) -> bool:
    """Whether it is an ``Agent``, of any kind that can be kicked off by itself."""
    return _is_a(agent, "crewai.agents.agent_builder.base_agent", "BaseAgent") and hasattr(agent, "kickoff")


def is_task(value: Any) -> bool:
    """Whether it is a ``Task``."""
    return _is_a(value, "crewai.task", "Task")


def is_flow(agent: Any) -> bool:
    """Whether it is a ``Flow``, or a class of flows."""
    kind = _type("crewai.flow.flow", "Flow")
    return kind is not None and (isinstance(agent, kind) or (isinstance(agent, type) and issubclass(agent, kind)))


def _is_a(value: Any, module: str, name: str) -> bool:
    kind = _type(module, name)
    return kind is not None and isinstance(value, kind)


def _type(module: str, name: str) -> type | None:
    kind = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) else None
