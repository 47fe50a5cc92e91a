"""Which CrewAI objects are agents, and how to run one on a task's input."""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar

from agentlightning.adapter import Adapter, supports
from agentlightning.threads import call_in_thread
from agentlightning_crewai import inputs
from agentlightning_crewai.kinds import is_agent, is_crew, is_crew_class, is_flow
from agentlightning_crewai.places import abandon

OLDEST, BELOW = "1.11", "2"
"""Before 1.11, tools that are called at once run in threads without the rollout's context."""

QUIET = {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "CREWAI_TESTING": "true"}
"""No telemetry, no traces, and no question on the terminal after the first run whether to view them."""


class CrewAIAdapter(Adapter):
    """Runs crews, flows and lone agents, each rollout with a copy of its own.

    CrewAI is touched only when the agent's own code has imported it.
    """

    name: ClassVar[str] = "crewai"
    modules: ClassVar[tuple[str, ...]] = ("crewai",)

    def accepts(self, agent: Any) -> bool:
        """True for a ``Crew``, an instance of a ``@CrewBase`` class, a ``Flow`` (or a class of flows), an ``Agent``."""
        return is_crew(agent) or is_crew_class(agent) or is_flow(agent) or is_agent(agent)

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs a fresh copy of the agent, and returns plain data (`agentlightning_crewai.plain`).

        A mapping is a crew's or a flow's ``inputs``; a string is the value of the only key there is, or what a lone
        agent is asked. A crew and an agent run in a thread of their own, as they block; a flow on the event loop.

        Raises `AdapterError` when the input does not fit, or no copy can be made.
        """
        try:
            return await self._run(agent, input)
        except Exception as error:
            abandon(error)
            raise

    async def _run(self, agent: Any, input: Any) -> Any:
        from agentlightning_crewai.fresh import fresh_agent, fresh_crew, fresh_flow
        from agentlightning_crewai.plain import agent_output, crew_output, plain

        if is_flow(agent):
            with fresh_flow(agent) as flow:
                return plain(await _consumed(await flow.kickoff_async(inputs=inputs.flow_inputs(flow, input))))
        if is_agent(agent):
            messages = inputs.agent_messages(agent, input)

            def ask() -> Any:
                with fresh_agent(agent) as own:
                    return agent_output(own.kickoff(messages))

            return await call_in_thread(ask)
        crew = agent.crew() if is_crew_class(agent) else agent
        given = inputs.crew_inputs(crew, input)

        def kick_off() -> Any:
            with fresh_crew(crew) as own:
                return crew_output(_streamed(own.kickoff(inputs=given)))

        return await call_in_thread(kick_off)

    def prepare(self) -> None:
        """Switches telemetry, traces and questions about them off, where the environment does not say otherwise."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)

    def hook(self) -> None:
        """Listens to CrewAI's events and adds the locator, where CrewAI is of a supported version."""
        if supports("crewai", OLDEST, BELOW):
            from agentlightning_crewai import bus

            bus.install()

    def unhook(self) -> None:
        """Puts the event bus back as it was, and removes the locator."""
        bus = sys.modules.get("agentlightning_crewai.bus")
        if bus is not None:
            bus.uninstall()


def _streamed(result: Any) -> Any:
    """The result of a crew with ``stream=True``: its chunks have to be read first."""
    if hasattr(result, "tasks_output"):
        return result
    for _ in result:
        pass
    return result.result


async def _consumed(result: Any) -> Any:
    """The result of a flow with ``stream=True``."""
    if not hasattr(result, "__aiter__"):
        return result
    async for _ in result:
        pass
    return result.result
