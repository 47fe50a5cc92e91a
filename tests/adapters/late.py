"""Agents that import their framework when they are asked, as functions of a large program do.

``python tests/adapters/late.py NAME`` runs one as a rollout, and prints what was recorded of it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

NOWHERE = "http://127.0.0.1:9/v1"
"""Where nobody answers: the agents work only if their calls are redirected."""


async def langgraph(question: str) -> str:
    from langchain.agents import create_agent
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="own", base_url=NOWHERE, api_key="sk-own", max_retries=0)
    solver = create_agent(chat, [tool(add)], name="solver")
    return str((await solver.ainvoke({"messages": [("user", question)]}))["messages"][-1].content)


async def autogen(question: str) -> str:
    from adapters.frameworks.autogen import MODEL_INFO
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    chat = OpenAIChatCompletionClient(
        model="own", base_url=NOWHERE, api_key="sk-own", max_retries=0, model_info={**MODEL_INFO}
    )

    class Solver(AssistantAgent):
        """A class that is written late, too."""

    solver = Solver("solver", chat, tools=[add], max_tool_iterations=3)
    return str((await solver.run(task=question)).messages[-1].content)


async def autogen_core(question: str) -> str:
    from adapters.patterns import autogen_core

    return str(await autogen_core.core(NOWHERE)(question))


def crewai(question: str) -> str:
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    chat = LLM(model="own", provider="openai", base_url=NOWHERE, api_key="sk-own", max_retries=0)
    solver = Agent(role="solver", goal="Add.", backstory="You add.", llm=chat, tools=[tool("add")(add)])
    task = Task(name="sum", description=question, expected_output="A number.", agent=solver)
    return str(Crew(name="solving", agents=[solver], tasks=[task]).kickoff().raw)


async def openai_agents(question: str) -> str:
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool
    from openai import AsyncOpenAI

    chat = OpenAIResponsesModel("own", AsyncOpenAI(base_url=NOWHERE, api_key="sk-own", max_retries=0))
    return str((await Runner.run(Agent("solver", tools=[function_tool(add)], model=chat), question)).final_output)


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


FRAMEWORKS = ("langchain_core", "autogen_core", "autogen_agentchat", "crewai", "agents", "openai")


def main(name: str) -> list[str]:
    from recorded import record
    from stub_answers import text, tool_call
    from stub_server import StubServer

    from agentlightning.agents import load_agent
    from agentlightning.plugins import plugins
    from agentlightning.records import Policy

    agent, adapter = load_agent(f"adapters.late:{name}", plugins())
    imported = [framework for framework in FRAMEWORKS if framework in sys.modules]
    assert not imported, f"imported before the agent was asked: {imported}"
    with StubServer() as engine:
        engine.reply(tool_call("add", id="call_1", a=2, b=3), text("It is 5."))
        with record(resources=[Policy(name="policy", model="policy", base_url=engine.base_url)]) as recorded:
            output = asyncio.run(adapter.run(agent, "What is 2 + 3?"))
        assert output == "It is 5.", output
        assert [request.json["model"] for request in engine.requests] == ["policy", "policy"]
    return [*recorded.outline(), *(name for name in FRAMEWORKS if name in sys.modules)]


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    sys.stdout.write("\n".join(main(sys.argv[1])) + "\n")
