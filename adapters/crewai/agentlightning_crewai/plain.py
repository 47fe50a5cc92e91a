"""What CrewAI returns, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def crew_output(result: Any) -> dict[str, Any]:
    """``output``, the crew's answer, and ``tasks``, each task's name, agent and output, in order.

    An answer is text, or a mapping where the task has ``output_json`` or ``output_pydantic``.
    """
    tasks = [{"name": task.name, "agent": task.agent.strip(), "output": _answer(task)} for task in result.tasks_output]
    return {"output": _answer(result), "tasks": tasks}


def agent_output(result: Any) -> dict[str, Any]:
    """``output``, the agent's answer."""
    return {"output": _answer(result)}


def plain(value: Any) -> Any:
    """``value`` with every result of a crew or an agent, and every pydantic model in it, as a mapping. Anything else
    stays what it is."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, BaseModel):
        if hasattr(value, "raw") and hasattr(value, "tasks_output"):
            return crew_output(value)
        if hasattr(value, "raw") and hasattr(value, "pydantic"):
            return agent_output(value)
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def _answer(result: Any) -> Any:
    if result.pydantic is not None:
        return plain(result.pydantic.model_dump())
    return getattr(result, "json_dict", None) or result.raw
