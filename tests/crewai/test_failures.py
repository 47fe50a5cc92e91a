"""What goes wrong, and what is left of it in the spans."""

from __future__ import annotations

import openai
import pytest
from stub_answers import error, text


async def test_a_model_that_fails_for_good(adapter, rollout, stub, made):
    stub.reply(lambda request: error(500, "broken"))
    with rollout() as recorded, pytest.raises(openai.InternalServerError):
        await adapter.run(made.crew(made.task(made.agent("writer"))), "?")
    assert {(call.failure.type, call.failure.fault) for call in recorded.all("llm")} == {
        ("engine_unavailable", "infrastructure")
    }
    assert len(recorded.all("llm")) == len(stub.requests) == 3, "CrewAI asks an agent three times"
    crew, task = recorded.spans[:2]
    for failed in (crew, task):
        assert (failed.failure.type, failed.failure.exception) == ("agent_error", "openai.InternalServerError")


async def test_an_agent_that_is_asked_again_stays_in_its_place(adapter, rollout, stub, made):
    stub.reply(error(500, "broken"), text("a draft"), text("fine"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("writer")), made.task(made.agent("critic"))), "?")
    by_id = {span.id: span for span in recorded.spans}
    calls = recorded.all("llm")
    assert [(call.agent, call.failure is None) for call in calls] == [
        ("writer", False),
        ("writer", True),
        ("critic", True),
    ]
    assert [by_id[call.parent_id].name for call in calls] == ["writer", "writer", "critic"]
    tasks = [span for span in recorded.spans if span.parent_id == recorded.only("agent", "team").id]
    assert [task.agent for task in tasks] == ["writer", "critic"]
    assert all(task.failure is None for task in tasks)


async def test_a_guardrail_that_is_never_content_fails_its_task(adapter, rollout, stub, made):
    stub.reply(lambda request: text("no"))

    def never(output):
        return False, "never"

    crew = made.crew(made.task(made.agent("writer"), guardrail=never, guardrail_max_retries=1))
    with rollout() as recorded, pytest.raises(Exception, match="never"):
        await adapter.run(crew, "?")
    assert len(recorded.all("annotation", "guardrail")) == 2
    crew_span, task = recorded.spans[:2]
    assert task.failure.type == crew_span.failure.type == "agent_error"
    assert all(agent.failure is None for agent in recorded.all("agent", "writer"))


async def test_what_has_no_input_raises_before_anything_runs(adapter, rollout, made):
    with rollout() as recorded, pytest.raises(Exception, match="question"):
        await adapter.run(made.crew(made.task(made.agent("writer"))), {"answer": "?"})
    assert recorded.all("llm") == []


async def test_a_time_out_is_told_from_other_errors(adapter, rollout, stub, made):
    def late(output):
        raise TimeoutError("too late")

    with rollout() as recorded, pytest.raises(TimeoutError):
        await adapter.run(made.crew(made.task(made.agent("writer"), guardrail=late)), "?")
    assert [span.failure.type for span in recorded.spans[:2]] == ["timeout", "timeout"]
