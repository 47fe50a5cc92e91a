"""OpenAI Agents SDK: agents, a hand-over; streams and teams are functions that run agents, as its users write them."""

from __future__ import annotations

from typing import Any

from adapters.framework import KEY, MODEL, add


class OpenAIAgents:
    adapter = "openai-agents"
    packages = ("agents",)
    api = "responses"
    gaps: dict[str, str] = {}

    def solver(self, base_url: str) -> Any:
        from agents import Agent, function_tool

        return Agent("solver", instructions="You add numbers.", tools=[function_tool(add)], model=self._model(base_url))

    def streaming(self, base_url: str) -> Any:
        from agents import Runner

        solver = self.solver(base_url)

        async def solve(question: str) -> Any:
            result = Runner.run_streamed(solver, question)
            async for _ in result.stream_events():
                pass
            return result.final_output

        return solve

    def handover(self, base_url: str) -> Any:
        from agents import Agent

        model = self._model(base_url)
        expert = Agent("expert", instructions="You answer.", model=model)
        return Agent("triage", instructions="You hand over.", handoffs=[expert], model=model)

    def team(self, base_url: str) -> Any:
        from agents import Agent, Runner, custom_span, trace

        model = self._model(base_url)
        writer = Agent("writer", instructions="You write.", model=model)
        critic = Agent("critic", instructions="You criticise.", model=model)

        async def team(question: str) -> Any:
            with custom_span("team"):
                draft = await Runner.run(writer, question)
                judged = await Runner.run(critic, f"{question} Is it {draft.final_output}?")
            return judged.final_output

        async def office(question: str) -> Any:
            with trace("office"):
                return await team(question)

        return office

    def _model(self, base_url: str) -> Any:
        from agents import OpenAIResponsesModel
        from openai import AsyncOpenAI

        return OpenAIResponsesModel(MODEL, AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=2))


framework = OpenAIAgents()
