"""A task's input as what CrewAI's objects take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentlightning.errors import AdapterError

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)}")
"""What CrewAI fills in; other braces stay as they are."""


def crew_inputs(crew: Any, input: Any) -> dict[str, Any]:
    """A mapping as it is, a string under the one placeholder that the crew's templates have.

    Raises `AdapterError` where it is neither, or there is not one placeholder.
    """
    if isinstance(input, Mapping):
        return dict(input)
    keys = crew_keys(crew)
    if isinstance(input, str) and len(keys) == 1:
        return {keys[0]: input}
    raise AdapterError(
        f"the crew {crew.name or 'crew'!r} takes a mapping with the keys of its templates, "
        f"{', '.join(keys) or 'which have none'}, or a string where there is exactly one; the task's input is a "
        f"{type(input).__name__}: "
        + (f"give {_example(keys)}" if keys else "write {question}, say, into the description of a task")
    )


def crew_keys(crew: Any) -> list[str]:
    """The placeholders in the descriptions and expected outputs of the tasks, and in what describes the agents."""
    texts = [text for task in crew.tasks for text in (task.description, task.expected_output)]
    texts += [text for agent in crew.agents for text in (agent.role, agent.goal, agent.backstory)]
    return list(dict.fromkeys(key for text in texts for key in PLACEHOLDER.findall(text or "")))


def flow_inputs(flow: Any, input: Any) -> dict[str, Any]:
    """A mapping as it is, a string under the one key that the flow's state has.

    Raises `AdapterError` where it is neither, or there is not one key.
    """
    if isinstance(input, Mapping):
        return dict(input)
    keys = flow_keys(flow)
    if isinstance(input, str) and len(keys) == 1:
        return {keys[0]: input}
    raise AdapterError(
        f"the flow {type(flow).__name__!r} takes a mapping with the keys of its state, "
        f"{', '.join(keys) or 'which are not declared'}, or a string where there is exactly one; the task's input is "
        f"a {type(input).__name__}: give {_example(keys)}"
    )


def flow_keys(flow: Any) -> list[str]:
    """The keys of a flow's state, without its id."""
    state = flow.state
    return [name for name in (state if isinstance(state, Mapping) else state.model_dump()) if name != "id"]


def agent_messages(agent: Any, input: Any) -> str | list[Any]:
    """A string as it is, a list as messages. Raises `AdapterError` for anything else."""
    if isinstance(input, str | list):
        return input
    raise AdapterError(
        f"the agent {agent.role.strip()!r} takes a string or a list of messages, and the task's input is a "
        f"{type(input).__name__}: give each task a string, or put the agent into a crew whose tasks have placeholders"
    )


def _example(keys: list[str]) -> str:
    return f"{{{', '.join(f'{key!r}: …' for key in keys or ['question'])}}}"
