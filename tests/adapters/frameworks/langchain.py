"""LangChain without a graph: named chains that call a model and run its tools."""

from __future__ import annotations

from typing import Any

from adapters.framework import KEY, MODEL, add


class LangChain:
    adapter = "langgraph"
    packages = ("langchain_core", "langchain_openai", "langgraph")
    api = "chat"
    gaps: dict[str, str] = {}

    def solver(self, base_url: str) -> Any:
        return self._agent("solver", self._model(base_url))

    def streaming(self, base_url: str) -> Any:
        return self._agent("solver", self._model(base_url, streaming=True))

    def handover(self, base_url: str) -> Any:
        model = self._model(base_url)
        triage = self._named("triage", lambda question: model.invoke(f"Who answers? {question}"))
        expert = self._named("expert", lambda question: model.invoke(question).content)

        def answer(question: str) -> Any:
            triage.invoke(question)
            return expert.invoke(question)

        return self._named("office", answer)

    def team(self, base_url: str) -> Any:
        model = self._model(base_url)
        writer = self._named("writer", lambda question: model.invoke(question).content)
        critic = self._named("critic", lambda draft: model.invoke(f"Is it right? {draft}").content and draft)
        team = self._named("team", lambda question: critic.invoke(writer.invoke(question)))
        return self._named("office", team.invoke)

    def _model(self, base_url: str, **options: Any) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, max_retries=2, **options)

    def _named(self, name: str, function: Any) -> Any:
        from langchain_core.runnables import RunnableLambda

        return RunnableLambda(function).with_config(run_name=name)

    def _agent(self, name: str, model: Any) -> Any:
        from langchain_core.tools import tool

        tools = {"add": tool(add)}
        asking = model.bind_tools(list(tools.values()))

        def think(question: str) -> str:
            messages: list[Any] = [("system", "You add numbers."), ("user", question)]
            while True:
                answer = asking.invoke(messages)
                if not answer.tool_calls:
                    return str(answer.content)
                messages += [answer, *(tools[call["name"]].invoke(call) for call in answer.tool_calls)]

        return self._named(name, think)


framework = LangChain()
