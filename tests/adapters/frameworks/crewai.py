"""CrewAI: a crew of one agent, delegation to a coworker, a crew in a flow."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from adapters.framework import KEY, MODEL, add

_storage = tempfile.TemporaryDirectory(prefix="crewai-")
os.environ["CREWAI_STORAGE_DIR"] = _storage.name  # crews in flows keep their last outputs there


class CrewAI:
    adapter = "crewai"
    packages = ("crewai",)
    api = "chat"
    gaps: dict[str, str] = {}

    def solver(self, base_url: str) -> Any:
        return self._solver(self._model(base_url))

    def streaming(self, base_url: str) -> Any:
        return self._solver(self._model(base_url, stream=True))

    def handover(self, base_url: str) -> Any:
        from crewai import Crew
        from crewai.tools.agent_tools.delegate_work_tool import DelegateWorkTool

        model = self._model(base_url)
        expert = self._agent("expert", model)
        over = DelegateWorkTool(agents=[expert], description="Hands the question over.", result_as_answer=True)
        triage = self._agent("triage", model, tools=[over])
        return Crew(name="office", agents=[triage, expert], tasks=[self._task("{question}", triage)])

    def team(self, base_url: str) -> Any:
        from crewai import Crew
        from crewai.flow.flow import Flow, start
        from pydantic import BaseModel

        class State(BaseModel):
            question: str = ""

        def make_team() -> Crew:
            model = self._model(base_url)
            writer, critic = self._agent("writer", model), self._agent("critic", model)
            tasks = [self._task("{question}", writer), self._task("Is the answer to {question} right?", critic)]
            return Crew(name="team", agents=[writer, critic], tasks=tasks)

        class Office(Flow[State]):
            @start()
            def ask(self) -> str:
                return str(make_team().kickoff(inputs={"question": self.state.question}).raw)

        return Office()

    def _model(self, base_url: str, **options: Any) -> Any:
        from crewai import LLM

        return LLM(model=MODEL, provider="openai", base_url=base_url, api_key=KEY, max_retries=2, **options)

    def _agent(self, role: str, model: Any, **options: Any) -> Any:
        from crewai import Agent

        return Agent(role=role, goal="Answer the question.", backstory="You know numbers.", llm=model, **options)

    def _task(self, description: str, agent: Any) -> Any:
        from crewai import Task

        return Task(description=description, expected_output="A number.", agent=agent)

    def _solver(self, model: Any) -> Any:
        from crewai import Crew
        from crewai.tools import tool

        solver = self._agent("solver", model, tools=[tool("add")(add)])
        return Crew(name="solving", agents=[solver], tasks=[self._task("{question}", solver)])


framework = CrewAI()
