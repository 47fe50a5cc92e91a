"""AutoGen's core API by itself, no AgentChat: messages between a helper and an agent that runs its tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapters.framework import KEY, MODEL, add
from adapters.frameworks.autogen import MODEL_INFO
from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler
from autogen_core.models import UserMessage
from autogen_core.tool_agent import ToolAgent, tool_agent_caller_loop
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient


def model(base_url: str) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model=MODEL, base_url=base_url, api_key=KEY, max_retries=0, model_info={**MODEL_INFO}
    )


@dataclass
class Ask:
    """What the agents of the core API tell each other."""

    content: str


class Helper(RoutedAgent):
    """Asks its model, and has a tool agent run the tools that it asks for."""

    def __init__(self, client: OpenAIChatCompletionClient, tools: list[Any], runs_tools: AgentId) -> None:
        super().__init__("Helps.")
        self._client, self._tools, self._runs_tools = client, tools, runs_tools

    @message_handler
    async def answer(self, message: Ask, ctx: MessageContext) -> Ask:
        said = await tool_agent_caller_loop(
            self,
            tool_agent_id=self._runs_tools,
            model_client=self._client,
            input_messages=[UserMessage(content=message.content, source="user")],
            tool_schema=self._tools,
            cancellation_token=ctx.cancellation_token,
        )
        return Ask(str(said[-1].content))


def core(base_url: str) -> Any:
    """Agents of the core API: messages between a helper and an agent that runs its tools."""

    async def solve(question: str) -> str:
        tools: list[Any] = [FunctionTool(add, description="Adds two numbers.")]
        runtime = SingleThreadedAgentRuntime()
        await ToolAgent.register(runtime, "tools", lambda: ToolAgent("Runs tools.", tools))
        await Helper.register(runtime, "helper", lambda: Helper(model(base_url), tools, AgentId("tools", "default")))
        runtime.start()
        answer = await runtime.send_message(Ask(question), AgentId("helper", "default"))
        await runtime.stop_when_idle()
        return str(answer.content)

    return solve
