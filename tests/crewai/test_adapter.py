"""Which agents the adapter takes, how it hands them a task, what it gives back, and what a rollout leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import pytest
from crewai import Agent, Crew, Task
from crewai.project import CrewBase, agent, crew, task
from crewai.tools import BaseTool
from pydantic import BaseModel
from stub_answers import Answer, Received, text, tool_call

from agentlightning.errors import AdapterError
from agentlightning_crewai.adapter import QUIET, CrewAIAdapter


@CrewBase
class Newsroom:
    """As ``crewai create crew`` writes it."""

    agents_config: dict[str, Any] = {}
    tasks_config: dict[str, Any] = {}
    model: Any = None

    @agent
    def writer(self) -> Agent:
        return Agent(role="writer", goal="Write.", backstory="You write.", llm=self.model)

    @task
    def write(self) -> Task:
        return Task(description="{question}", expected_output="Text.", agent=self.writer())

    @crew
    def crew(self) -> Crew:
        return Crew(agents=self.agents, tasks=self.tasks)


def newsroom(made: Any) -> Any:
    made_of_it = Newsroom()
    made_of_it.model = made.model()
    return made_of_it


def test_it_takes_crews_flows_and_agents_and_nothing_else(adapter, made):
    assert adapter.accepts(made.crew(made.task(made.agent("writer"))))
    assert adapter.accepts(made.agent("writer"))
    assert adapter.accepts(newsroom(made))
    assert not adapter.accepts(Newsroom), "a class is a factory of agents"
    assert not adapter.accepts(made.task(made.agent("writer")))
    assert not adapter.accepts(len)
    assert not adapter.accepts("crew")


async def test_a_crew_of_a_crew_base_class(adapter, rollout, stub, made):
    stub.reply(text("news"))
    with rollout() as recorded:
        output = await adapter.run(newsroom(made), "What is new?")
    assert output["output"] == "news"
    assert recorded.only("llm").agent == "writer"


async def test_a_lone_agent_is_asked(adapter, rollout, stub, made):
    stub.reply(text("me"), text("you"))
    lone = made.agent("lone")
    with rollout() as recorded:
        assert await adapter.run(lone, "Who?") == {"output": "me"}
    assert recorded.outline() == ["agent lone [lone]", "  llm chat stub-model [lone]"]
    assert await adapter.run(lone, [{"role": "user", "content": "And who is there?"}]) == {"output": "you"}
    assert "And who is there?" in stub.requests[-1].json["messages"][-1]["content"]
    with pytest.raises(AdapterError, match=r"agent 'lone' takes a string or a list of messages.*is a dict"):
        await adapter.run(lone, {"question": "Who?"})


async def test_a_mapping_is_a_crews_inputs(adapter, stub, made):
    both = made.crew(made.task(made.agent("{style} writer"), "Write of {topic}, not of {{topic}} or {1}."))
    await adapter.run(both, {"topic": "AI", "style": "dry"})
    asked = stub.requests[0].json["messages"]
    assert "You are dry writer." in asked[0]["content"]
    assert "Write of AI" in asked[1]["content"]


async def test_a_string_for_several_placeholders_is_an_error_that_names_them(adapter, made):
    both = made.crew(made.task(made.agent("{style} writer"), "Write of {topic}."))
    with pytest.raises(AdapterError, match=r"'team'.*topic, style.*is a str: give \{'topic': …, 'style': …\}"):
        await adapter.run(both, "AI")
    none = made.crew(made.task(made.agent("writer"), "Write."))
    with pytest.raises(AdapterError, match=r"which have none.*write \{question\}"):
        await adapter.run(none, "AI")
    with pytest.raises(AdapterError, match="is a int"):
        await adapter.run(made.crew(made.task(made.agent("writer"))), 4)


class Sum(BaseModel):
    total: int


async def test_structured_answers_are_mappings(adapter, stub, made):
    stub.reply(lambda request: text('{"total": 5}'))
    worker = made.agent("solver")
    output = await adapter.run(made.crew(made.task(worker, output_pydantic=Sum)), "2 + 3?")
    assert output["output"] == output["tasks"][0]["output"] == {"total": 5}
    assert (await adapter.run(made.crew(made.task(worker, output_json=Sum)), "2 + 3?"))["output"] == {"total": 5}


async def test_what_one_rollout_says_no_other_hears(adapter, rollout, stub, made):
    def echo(request: Received) -> Answer:
        return text(json.dumps(request.json["messages"]))

    stub.reply(echo)
    crew = made.crew(made.task(made.agent("writer")), made.task(made.agent("critic"), "Check it."))

    async def run(number: int) -> Any:
        with rollout(f"r{number}"):
            return await adapter.run(crew, f"question {number:02}")

    shared = crew._task_output_handler.load()
    outputs = await asyncio.gather(*map(run, range(16)))
    for number, output in enumerate(outputs):
        said = json.dumps(output)
        assert f"question {number:02}" in said
        assert not any(f"question {other:02}" in said for other in range(16) if other != number)
    assert crew.tasks[0].description == "{question}"
    assert crew.tasks[0].output is None
    assert crew._task_output_handler.load() == shared, "what all crews of a machine share"


async def test_a_tools_uses_are_counted_in_each_rollout(adapter, rollout, stub, made):
    class Once(BaseTool):
        name: str = "once"
        description: str = "Works once."

        def _run(self) -> str:
            return "worked"

    once = Once(max_usage_count=1)
    crew = made.crew(made.task(made.agent("worker", tools=[once])))
    for _ in range(2):
        stub.reply(tool_call("once"), text("done"))
        with rollout() as recorded:
            await adapter.run(crew, "?")
        assert recorded.only("tool").failure is None, recorded.only("tool")
    assert once.current_usage_count == 0


async def test_agents_that_only_a_task_or_a_tool_knows_are_copied_too(adapter, rollout, stub, made):
    from crewai.tools.agent_tools.delegate_work_tool import DelegateWorkTool

    stub.reply(tool_call("delegate_work_to_coworker", task="t", context="", coworker="helper"), text("x"), text("y"))
    helper = made.agent("helper")
    boss = made.agent("boss", tools=[DelegateWorkTool(agents=[helper], description="Hands over.")])
    crew = made.crew(made.task(boss), made.task(helper, "Sum up."), agents=[])
    with rollout() as recorded:
        await adapter.run(crew, "?")
    assert [call.agent for call in recorded.all("llm")] == ["boss", "helper", "boss", "helper"]
    assert helper.agent_executor is None
    assert boss.agent_executor is None


def test_telemetry_is_off_unless_somebody_has_said_otherwise(monkeypatch):
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CREWAI_TRACING_ENABLED", "true")
    CrewAIAdapter().prepare()
    assert {name: os.environ[name] for name in QUIET} == {**QUIET, "CREWAI_TRACING_ENABLED": "true"}
