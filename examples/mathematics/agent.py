"""An AutoGen agent that solves word problems with a calculator. It knows nothing of who trains it."""

import asyncio
import sys

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.ui import Console
from autogen_ext.models.openai import OpenAIChatCompletionClient
from calculator import calculate


async def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as (3 + 4) * 2."""
    return calculate(expression)


solver = AssistantAgent(
    "solver",
    OpenAIChatCompletionClient(model="gpt-4o-mini", max_tokens=48),
    tools=[calculator],
    system_message="Solve the problem step by step with the calculator. Then say: The answer is N.",
    max_tool_iterations=6,
)

if __name__ == "__main__":
    asyncio.run(Console(solver.run_stream(task=" ".join(sys.argv[1:]))))
