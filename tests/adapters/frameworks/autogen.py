"""AutoGen AgentChat: assistant agents, a swarm for the hand-over, a team in a team."""

from __future__ import annotations

from typing import Any

from adapters.framework import KEY, MODEL, add

MODEL_INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": "unknown",
}


class AutoGen:
    adapter = "autogen"
    packages = ("autogen_agentchat", "autogen_ext", "tiktoken")
    api = "chat"
    gaps: dict[str, str] = {}

    def solver(self, base_url: str) -> Any:
        return self._solver(base_url)

    def streaming(self, base_url: str) -> Any:
        return self._solver(base_url, model_client_stream=True)

    def handover(self, base_url: str) -> Any:
        from autogen_agentchat.agents import AssistantAgent
        from autogen_agentchat.conditions import TextMessageTermination
        from autogen_agentchat.teams import Swarm

        model = self._model(base_url)
        triage = AssistantAgent("triage", model, handoffs=["expert"], system_message="You hand over.")
        expert = AssistantAgent("expert", model, system_message="You answer.")
        return Swarm([triage, expert], termination_condition=TextMessageTermination("expert"))

    def team(self, base_url: str) -> Any:
        from autogen_agentchat.agents import AssistantAgent
        from autogen_agentchat.teams import RoundRobinGroupChat

        model = self._model(base_url)
        writer = AssistantAgent("writer", model, system_message="You write.")
        critic = AssistantAgent("critic", model, system_message="You criticise.")
        team = RoundRobinGroupChat([writer, critic], name="team", max_turns=2)
        return RoundRobinGroupChat([team], name="office", max_turns=1)

    def _model(self, base_url: str) -> Any:
        from autogen_ext.models.openai import OpenAIChatCompletionClient

        return OpenAIChatCompletionClient(
            model=MODEL, base_url=base_url, api_key=KEY, max_retries=2, model_info=MODEL_INFO
        )

    def _solver(self, base_url: str, **options: Any) -> Any:
        from autogen_agentchat.agents import AssistantAgent

        model = self._model(base_url)
        return AssistantAgent(
            "solver", model, tools=[add], system_message="You add numbers.", max_tool_iterations=3, **options
        )


framework = AutoGen()
