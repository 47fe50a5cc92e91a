"""What can be found out about a crew, a flow or an agent by looking at it. Best effort."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from agentlightning.adapter import AgentDescription
from agentlightning_crewai.inputs import crew_keys, flow_keys
from agentlightning_crewai.kinds import is_agent, is_crew, is_crew_class, is_flow


def describe(agent: Any) -> AgentDescription:
    """Models, prompts (as CrewAI writes them), tools and the keys of the input."""
    if is_flow(agent):
        return _flow(agent)
    if is_agent(agent):
        return _described(agent, [agent], [], [], "a string (what the agent is asked), or a list of messages")
    crew = agent.crew() if is_crew_class(agent) else agent
    keys = crew_keys(crew)
    mapping = f"a mapping with the keys {', '.join(keys)}" if keys else "a mapping; its templates have no placeholder"
    text = f"a string ({{{keys[0]}}} in its templates), or {mapping}" if len(keys) == 1 else mapping
    return _described(agent, _agents(crew), crew.tasks, keys, text)


def _flow(flow: Any) -> AgentDescription:
    kind = flow if isinstance(flow, type) else type(flow)
    keys = flow_keys(flow() if isinstance(flow, type) else flow)
    parts = list(vars(kind).values())
    crews = [part for part in parts if is_crew(part)]
    agents = [agent for crew in crews for agent in _agents(crew)] + [part for part in parts if is_agent(part)]
    mapping = f"a mapping with the keys {', '.join(keys)}" if keys else "a mapping: the inputs of the flow"
    found = _described(flow, agents, [task for crew in crews for task in crew.tasks], keys, mapping)
    found.kind = kind.__name__
    return found


def _described(agent: Any, agents: list[Any], tasks: Iterable[Any], keys: list[str], input: str) -> AgentDescription:
    tasks = list(tasks)
    prompts = [_system_prompt(agent) for agent in agents] + [task.description for task in tasks]
    tools = [tool.name for holder in [*agents, *tasks] for tool in holder.tools or ()]
    return AgentDescription(
        framework="CrewAI",
        kind=type(agent).__name__,
        model=", ".join(dict.fromkeys(_models(agents))) or None,
        prompts=list(dict.fromkeys(prompts)),
        tools=list(dict.fromkeys(tools)),
        input=input,
        input_keys=keys if len(keys) != 1 else [],
    )


def _agents(crew: Any) -> list[Any]:
    everyone = [*crew.agents, *(task.agent for task in crew.tasks), crew.manager_agent]
    return list({id(agent): agent for agent in everyone if agent is not None}.values())


def _models(agents: Iterable[Any]) -> Iterator[str]:
    for agent in agents:
        model = getattr(agent.llm, "model", agent.llm)
        if isinstance(model, str):
            yield model


def _system_prompt(agent: Any) -> str:
    return f"You are {agent.role}. {agent.backstory}\nYour personal goal is: {agent.goal}"
