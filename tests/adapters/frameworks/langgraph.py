"""LangGraph: agents made by ``create_agent``, graphs of them, hand-over by a command of a tool."""

from __future__ import annotations

from typing import Any

from adapters.framework import KEY, MODEL, add


class LangGraph:
    adapter = "langgraph"
    packages = ("langgraph", "langchain", "langchain_openai")
    api = "chat"
    gaps: dict[str, str] = {}

    def solver(self, base_url: str) -> Any:
        return self._solver(self._model(base_url))

    def streaming(self, base_url: str) -> Any:
        return self._solver(self._model(base_url, streaming=True))

    def handover(self, base_url: str) -> Any:
        from langchain.agents import create_agent
        from langchain_core.messages import ToolMessage
        from langchain_core.tools import tool
        from langgraph.graph import START, MessagesState, StateGraph
        from langgraph.types import Command

        @tool
        def transfer_to_expert() -> Any:
            """Hands the question over to the expert."""
            done = ToolMessage("transferred", tool_call_id="call_over")
            return Command(goto="expert", graph=Command.PARENT, update={"messages": [done]})

        model = self._model(base_url)
        graph = StateGraph(MessagesState)
        graph.add_node("triage", create_agent(model, [transfer_to_expert], name="triage"), destinations=("expert",))
        graph.add_node("expert", create_agent(model, [], name="expert"))
        graph.add_edge(START, "triage")
        return graph.compile(name="office")

    def team(self, base_url: str) -> Any:
        from langchain.agents import create_agent
        from langgraph.graph import START, MessagesState, StateGraph

        model = self._model(base_url)
        graph = StateGraph(MessagesState)
        graph.add_node("writer", create_agent(model, [], name="writer"))
        graph.add_node("critic", create_agent(model, [], name="critic"))
        graph.add_edge(START, "writer")
        graph.add_edge("writer", "critic")
        outer = StateGraph(MessagesState)
        outer.add_node("team", graph.compile(name="team"))
        outer.add_edge(START, "team")
        return outer.compile(name="office")

    def _model(self, base_url: str, **options: Any) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, max_retries=2, **options)

    def _solver(self, model: Any) -> Any:
        from langchain.agents import create_agent
        from langchain_core.tools import tool

        return create_agent(model, [tool(add)], system_prompt="You add numbers.", name="solver")


framework = LangGraph()
