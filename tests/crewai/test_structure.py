"""Who did what: crews, tasks, agents, delegation, guardrails, and the model calls under them."""

from __future__ import annotations

import asyncio
import functools

from stub_answers import text, tool_call

from agentlightning import semconv
from agentlightning.recording import span
from agentlightning.records import Policy


async def test_a_crew_its_tasks_and_its_agents(adapter, rollout, stub, made):
    stub.reply(text("a draft"), text("fine"))
    write, check = made.task(made.agent("writer")), made.task(made.agent("critic"), "Is it right?", name="check")
    with rollout() as recorded:
        output = await adapter.run(made.crew(write, check), "Who?")
    assert recorded.outline() == [
        "crew team [team]",
        "  task Who? [writer]",
        "    agent writer [writer]",
        "      llm chat stub-model [writer]",
        "  task check [critic]",
        "    agent critic [critic]",
        "      llm chat stub-model [critic]",
    ]
    assert output == {
        "output": "fine",
        "tasks": [
            {"name": "Who?", "agent": "writer", "output": "a draft"},
            {"name": "check", "agent": "critic", "output": "fine"},
        ],
    }


async def test_delegation_is_a_hand_off_with_the_coworkers_work_in_it(adapter, rollout, stub, made):
    order = {"task": "Find out.", "context": "All.", "coworker": "helper"}
    stub.reply(tool_call("delegate_work_to_coworker", **order), text("found out"), text("done"))
    boss, helper = made.agent("boss", allow_delegation=True), made.agent("helper")
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(boss), agents=[boss, helper]), "Who?")
    assert recorded.outline()[2:] == [
        "    agent boss [boss]",
        "      llm chat stub-model [boss]",
        "      handoff helper [boss]",
        "        agent helper [helper]",
        "          llm chat stub-model [helper]",
        "      llm chat stub-model [boss]",
    ]
    over = recorded.only("handoff").attributes
    assert over[semconv.AGENT_NAME] == "helper"
    assert over[semconv.TOOL_CALL_ARGUMENTS] == order
    assert over[semconv.TOOL_CALL_RESULT] == "found out"


async def test_a_manager_hands_the_tasks_of_a_hierarchical_crew_over(adapter, rollout, stub, made):
    from crewai import Process

    order = {"task": "Find out.", "context": "All.", "coworker": "helper"}
    stub.reply(tool_call("delegate_work_to_coworker", **order), text("found out"), text("done"))
    options = {"agents": [made.agent("helper")], "process": Process.hierarchical, "manager_llm": made.model()}
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(None), **options), "Who?")
    assert [call.agent for call in recorded.all("llm")] == ["Crew Manager", "helper", "Crew Manager"]
    assert recorded.only("handoff", "helper").agent == "Crew Manager"


async def test_tasks_at_once_keep_their_calls_apart(adapter, rollout, stub, made):
    stub.reply(lambda request: text("said"))
    tasks = [made.task(made.agent(role), async_execution=True) for role in ("first", "second")]
    with rollout() as recorded:
        await adapter.run(made.crew(*tasks, made.task(made.agent("third"))), "Who?")
    assert sorted(call.agent for call in recorded.all("llm")) == ["first", "second", "third"]
    by_id = {span.id: span for span in recorded.spans}
    for call in recorded.all("llm"):
        assert by_id[call.parent_id].name == call.agent
        assert f"You are {call.agent}." in call.generation.messages[0]["content"]


async def test_a_guardrail_says_what_it_thought(adapter, rollout, stub, made):
    def is_short(output):
        return (True, output.raw) if len(output.raw) < 5 else (False, "too long")

    stub.reply(text("much too long"), text("ok"))
    with rollout() as recorded:
        output = await adapter.run(made.crew(made.task(made.agent("writer"), guardrail=is_short)), "Who?")
    assert output["output"] == "ok"
    assert recorded.outline()[2:] == [
        "    agent writer [writer]",
        "      llm chat stub-model [writer]",
        "    annotation guardrail [writer]",
        "    agent writer [writer]",
        "      llm chat stub-model [writer]",
        "    annotation guardrail [writer]",
    ]
    first, last = (judged.attributes for judged in recorded.all("annotation"))
    assert (first[semconv.EVALUATION_SCORE], first[semconv.EVALUATION_EXPLANATION]) == (0.0, "too long")
    assert last[semconv.EVALUATION_SCORE] == 1.0
    assert semconv.EVALUATION_EXPLANATION not in last


async def test_a_guardrail_in_words_asks_a_model_of_its_own(adapter, rollout, stub, made):
    stub.reply(text("fine"), text('{"valid": true, "feedback": null}'))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("writer"), guardrail="It must be short.")), "Who?")
    assert [call.agent for call in recorded.all("llm")] == ["writer", "Guardrail Agent"]
    assert recorded.only("agent", "Guardrail Agent").parent_id == recorded.only("annotation").id


async def test_roles_are_named_without_the_white_space_around_them(adapter, rollout, stub, made):
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("  {question} researcher\n"))), "AI")
    assert recorded.only("llm").agent == "AI researcher"


async def test_a_long_description_does_not_become_a_long_name(adapter, rollout, made):
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("writer"), "{question} " * 50)), "why")
    name = recorded.spans[1].name
    assert name.startswith("why why")
    assert len(name) <= 60


async def test_streams_and_the_responses_api_are_one_span_a_call(adapter, rollout, stub, made):
    stub.reply(lambda request: text("said"))
    streaming = made.crew(made.task(made.agent("writer")), stream=True)
    responding = made.crew(made.task(made.agent("writer", llm=made.model(api="responses"))))
    for crew in (streaming, responding):
        with rollout() as recorded:
            output = await adapter.run(crew, "Who?")
        assert output["output"] == "said"
        assert [call.generation.response["content"] for call in recorded.all("llm")] == ["said"]
    assert [request.path for request in stub.requests] == ["/v1/chat/completions", "/v1/responses"]
    assert stub.requests[0].json["stream"] is True


async def test_a_crew_that_a_function_kicks_off_is_recorded_just_the_same(adapter, rollout, stub, made):
    crew = made.crew(made.task(made.agent("writer")))
    for kick_off in (functools.partial(asyncio.to_thread, crew.kickoff), crew.kickoff_async, crew.akickoff):
        with rollout() as recorded, span("mine", agent="mine"):
            await kick_off({"question": "Who?"})
        assert recorded.outline() == [
            "agent mine [mine]",
            "  crew team [team]",
            "    task Who? [writer]",
            "      agent writer [writer]",
            "        llm chat stub-model [writer]",
        ]


async def test_a_span_opened_by_hand_in_a_tool_is_where_what_follows_belongs(adapter, rollout, stub, made):
    from crewai.tools import tool

    @tool("ask")
    def ask() -> str:
        """Asks a crew of its own."""
        with span("inside", agent="inside"):
            return str(made.crew(made.task(made.agent("helper")), name="helpers").kickoff({"question": "?"}).raw)

    stub.reply(tool_call("ask"), text("helped"), text("done"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("writer", tools=[ask]))), "Who?")
    assert recorded.outline()[4:] == [
        "      tool ask [writer]",
        "        agent inside [inside]",
        "          crew helpers [helpers]",
        "            task ? [helper]",
        "              agent helper [helper]",
        "                llm chat stub-model [helper]",
        "      llm chat stub-model [writer]",
    ]


async def test_only_the_calls_of_the_trained_agent_go_to_its_policy(adapter, rollout, stub, made):
    from stub_server import StubServer

    stub.reply(text("own"))
    with StubServer() as served:
        served.reply(text("served"))
        policy = Policy(name="policy", model="policy-1", base_url=served.base_url, agents=("critic",))
        crew = made.crew(made.task(made.agent("writer")), made.task(made.agent("critic")))
        with rollout(resources=[policy]):
            output = await adapter.run(crew, "Who?")
        assert [task["output"] for task in output["tasks"]] == ["own", "served"]
        assert (len(stub.requests), len(served.requests)) == (1, 1)
