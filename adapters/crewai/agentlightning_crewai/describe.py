"""What can be found out about an agent by looking at it: models, prompts, tools, the keys of its input."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from agentlightning.adapter import AgentDescription
from agentlightning.describing import Found, add, walk
from agentlightning_crewai.inputs import crew_keys, flow_keys
from agentlightning_crewai.kinds import is_agent, is_crew, is_crew_class, is_flow, is_task


def describe(agent: Any) -> AgentDescription:
    """Prompts are written as CrewAI writes them: who an agent is, and what a task asks for. Best effort."""
    found = walk(agent, _note, _parts)
    keys, text = _input(agent)
    return AgentDescription(
        framework="CrewAI",
        kind=(agent if isinstance(agent, type) else type(agent)).__name__,
        model=", ".join(found.models) or None,
        prompts=found.prompts,
        tools=found.tools,
        input=text,
        input_keys=keys if len(keys) > 1 else [],
    )


def _input(agent: Any) -> tuple[list[str], str]:
    """The keys that the input may have, and what to say of it."""
    if is_agent(agent):
        return [], "a string (what the agent is asked), or a list of messages"
    if is_flow(agent):
        keys, whose = flow_keys(agent() if isinstance(agent, type) else agent), "the flow's state"
    else:
        keys, whose = crew_keys(agent.crew() if is_crew_class(agent) else agent), "the crew's templates"
    if not keys:
        return keys, f"a mapping; {whose} has no keys that are known" if is_flow(agent) else "a mapping"
    mapping = f"a mapping with the keys {', '.join(keys)} of {whose}"
    return keys, f"a string (the key {keys[0]}), or {mapping}" if len(keys) == 1 else mapping


def _note(found: Found, name: str, value: Any) -> None:
    if is_agent(value):
        model = getattr(value.llm, "model", value.llm)
        if isinstance(model, str):
            add(found.models, model)
        add(found.prompts, f"You are {value.role}. {value.backstory}\nYour personal goal is: {value.goal}")
    elif is_task(value):
        add(found.prompts, value.description)
    elif name == "tool":
        add(found.tools, value.name)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if is_crew_class(value):
        yield "crew", value.crew()
    elif is_crew(value):
        yield from (("", part) for part in (*value.agents, *value.tasks, value.manager_agent))
    elif is_agent(value) or is_task(value):
        yield from (("tool", tool) for tool in value.tools or ())
        yield "agent", getattr(value, "agent", None)
    elif is_flow(value):
        kind = value if isinstance(value, type) else type(value)
        yield from {**vars(kind), **({} if kind is value else vars(value))}.items()
    elif callable(function := getattr(value, "__wrapped__", value)) and inspect.isfunction(function):
        yield from _named_by(function)


def _named_by(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """What a flow's method finds outside of itself: a crew of its module, say."""
    outside = inspect.getclosurevars(function)
    yield from outside.nonlocals.items()
    yield from ((name, part) for name, part in outside.globals.items() if is_crew(part) or is_agent(part))
