"""Which CrewAI objects are agents, and how to run one on a task's input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from agentlightning.adapter import Adapter
from agentlightning.adapterkit.typechecks import is_a
from agentlightning.errors import AdapterError
from agentlightning.threads import call_in_thread

QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "CREWAI_TESTING": "true"}
"""No telemetry, no traces, and no question on the terminal after the first run whether to view them."""

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)}")
"""What CrewAI fills in; other braces stay as they are."""


class CrewAIAdapter(Adapter):
    """Runs crews, flows and lone agents, each rollout with a copy of its own.

    CrewAI is touched only when the agent's own code has imported it.
    """

    name = "crewai"
    modules = ("crewai",)
    hooks = "agentlightning_crewai.hooks"
    entry_points = "agentlightning_crewai.entry_points:ENTRY_POINTS"
    versions = ("crewai", "1.11", "2")
    """Before 1.11, tools that are called at once run in threads without the rollout's context."""

    def accepts(self, agent: Any) -> bool:
        """True for a ``Crew``, an instance of a ``@CrewBase`` class, a ``Flow`` (or a class of flows), an ``Agent``."""
        return is_a(agent, "crewai.crew", "Crew") or _is_crew_class(agent) or _is_flow(agent) or _is_agent(agent)

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs a copy of the agent, and returns plain data (`to_plain`).

        A mapping is a crew's or a flow's ``inputs``; a string is the value of the only key there is, or what a lone
        agent is asked. A crew and an agent run in a thread of their own, as they block; a flow on the event loop.

        Raises `AdapterError` when the input does not fit, or no copy can be made.
        """
        from agentlightning_crewai.span_stack import end_all

        try:
            if _is_flow(agent):
                return await _run_flow(agent, input)
            if _is_agent(agent):
                return await call_in_thread(lambda: _run_agent(agent, input))
            crew = agent.crew() if _is_crew_class(agent) else agent
            return await call_in_thread(lambda: _run_crew(crew, input))
        except Exception as error:
            end_all(error)
            raise

    def prepare(self) -> None:
        """Switches telemetry, traces and questions about them off, where the environment does not say otherwise."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)


async def _run_flow(flow: Any, input: Any) -> Any:
    from agentlightning_crewai.isolation import isolated_flow

    with isolated_flow(flow) as own:
        result = await own.kickoff_async(inputs=_flow_inputs(own, input))
        if hasattr(result, "__aiter__"):  # a flow with ``stream=True``: its chunks have to be read first
            async for _ in result:
                pass
            result = result.result
        return to_plain(result)


def _run_agent(agent: Any, input: Any) -> Any:
    from agentlightning_crewai.isolation import isolated_agent

    if not isinstance(input, str | list):
        raise AdapterError(
            f"the agent {agent.role.strip()!r} takes a string or a list of messages, and the task's input is a "
            f"{type(input).__name__}: give each task a string, or put the agent into a crew whose tasks have "
            "placeholders"
        )
    with isolated_agent(agent) as own:
        return _agent_output(own.kickoff(input))


def _run_crew(crew: Any, input: Any) -> Any:
    from agentlightning_crewai.isolation import isolated_crew

    inputs = _crew_inputs(crew, input)
    with isolated_crew(crew) as own:
        result = own.kickoff(inputs=inputs)
        if not hasattr(result, "tasks_output"):  # a crew with ``stream=True``: its chunks have to be read first
            for _ in result:
                pass
            result = result.result
        return _crew_output(result)


def _is_crew_class(agent: Any) -> bool:
    """Whether it is an instance of a class that ``@CrewBase`` made, which has a method ``crew``."""
    return not isinstance(agent, type) and getattr(type(agent), "is_crew_class", False) is True


def _is_agent(agent: Any) -> bool:
    """Whether it is an ``Agent``, of any kind that can be kicked off by itself."""
    return is_a(agent, "crewai.agents.agent_builder.base_agent", "BaseAgent") and hasattr(agent, "kickoff")


def _is_flow(agent: Any) -> bool:
    """Whether it is a ``Flow``, or a class of flows."""
    kind = getattr(sys.modules.get("crewai.flow.flow"), "Flow", None)
    return isinstance(kind, type) and issubclass(agent if isinstance(agent, type) else type(agent), kind)


def _crew_inputs(crew: Any, input: Any) -> dict[str, Any]:
    def keys() -> list[str]:
        texts = [text for task in crew.tasks for text in (task.description, task.expected_output)]
        texts += [text for agent in crew.agents for text in (agent.role, agent.goal, agent.backstory)]
        return list(dict.fromkeys(key for text in texts for key in PLACEHOLDER.findall(text or "")))

    hint = "write {question}, say, into the description of a task"
    return _inputs(input, keys, f"crew {crew.name or 'crew'!r}", "templates, which have none", hint)


def _flow_inputs(flow: Any, input: Any) -> dict[str, Any]:
    def keys() -> list[str]:
        state = flow.state
        return [name for name in (state if isinstance(state, Mapping) else state.model_dump()) if name != "id"]

    hint = "give {'question': …}"
    return _inputs(input, keys, f"flow {type(flow).__name__!r}", "state, which are not declared", hint)


def _inputs(input: Any, find_keys: Callable[[], list[str]], agent: str, source: str, hint: str) -> dict[str, Any]:
    """A mapping as it is, a string under the one key that there is. Raises `AdapterError` where it is neither, or there
    is not one key; without any, the error says so of their ``source``, and gives the ``hint``."""
    if isinstance(input, Mapping):
        return dict(input)
    keys = find_keys()
    if isinstance(input, str) and len(keys) == 1:
        return {keys[0]: input}
    if keys:
        source = f"{source.partition(',')[0]}, {', '.join(keys)}"
        hint = f"give {{{', '.join(f'{key!r}: …' for key in keys)}}}"
    raise AdapterError(
        f"the {agent} takes a mapping with the keys of its {source}, or a string where there is exactly one; the "
        f"task's input is a {type(input).__name__}: {hint}"
    )


def to_plain(value: Any) -> Any:
    """``value`` with every result of a crew or an agent, and every pydantic model in it, as a mapping. Anything else
    stays what it is.

    A crew's result is ``output``, its answer, and ``tasks``, each task's name, agent and output, in order; an agent's
    is ``output`` alone. An answer is text, or a mapping where the task has ``output_json`` or ``output_pydantic``.
    """
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in value]
    if not is_a(value, "pydantic", "BaseModel"):
        return value
    if hasattr(value, "raw") and hasattr(value, "tasks_output"):
        return _crew_output(value)
    if hasattr(value, "raw") and hasattr(value, "pydantic"):
        return _agent_output(value)
    return to_plain(value.model_dump())


def _crew_output(result: Any) -> dict[str, Any]:
    tasks = [{"name": task.name, "agent": task.agent.strip(), "output": _answer(task)} for task in result.tasks_output]
    return {"output": _answer(result), "tasks": tasks}


def _agent_output(result: Any) -> dict[str, Any]:
    return {"output": _answer(result)}


def _answer(result: Any) -> Any:
    if result.pydantic is not None:
        return to_plain(result.pydantic.model_dump())
    return getattr(result, "json_dict", None) or result.raw
