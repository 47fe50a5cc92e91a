"""What becomes which span, and under which agent's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    Model,
    ModelResponse,
    OutputGuardrail,
    RunConfig,
    Runner,
    Usage,
    custom_span,
    function_span,
    generation_span,
    trace,
)
from agents.mcp import MCPServer
from mcp.types import CallToolResult, TextContent, Tool
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from stub_answers import text

from agentlightning import semconv
from agentlightning.recording import span


async def test_a_run_is_a_workflow_of_agents_of_turns(adapter, make, add, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2, "b": 3}'), ("add", '{"a": 4, "b": 5}')), text("5 and 9"))
    with rollout() as ran:
        await adapter.run(make("solver", tools=[add]), "?")
    assert ran.outline() == [
        "workflow Agent workflow [Agent workflow]",
        "  agent solver [solver]",
        "    turn turn 1 [solver]",
        "      llm chat own-model [solver]",
        "      tool add [solver]",
        "      tool add [solver]",
        "    turn turn 2 [solver]",
        "      llm chat own-model [solver]",
    ]


async def test_the_chat_api_is_recorded_alike(adapter, make, add, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2, "b": 3}')), text("5"))
    with rollout() as ran:
        await adapter.run(make("solver", chat=True, tools=[add]), "?")
    assert ran.agents() == ["solver", "solver"]
    assert ran.only("tool").attributes == {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "add",
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: "call_0",
        semconv.TOOL_CALL_ARGUMENTS: {"a": 2, "b": 3},
        semconv.TOOL_CALL_RESULT: 5,
    }


async def test_a_hand_over_says_who_to_whom(adapter, make, stub, calls, rollout):
    stub.reply(calls(("transfer_to_expert", "{}")), text("5"))
    with rollout() as ran:
        await adapter.run(make("triage", handoffs=[make("expert")]), "?")
    assert ran.outline()[1:] == [
        "  agent triage [triage]",
        "    turn turn 1 [triage]",
        "      llm chat own-model [triage]",
        "      handoff expert [triage]",
        "  agent expert [expert]",
        "    turn turn 2 [expert]",
        "      llm chat own-model [expert]",
    ]
    assert ran.only("handoff").attributes == {
        semconv.AGENT_NAME: "expert",
        semconv.TOOL_CALL_ID: "call_0",
        semconv.TOOL_CALL_ARGUMENTS: {},
    }


async def test_an_agent_that_is_a_tool_is_under_the_tools_span(adapter, make, stub, calls, rollout):
    stub.reply(calls(("ask", '{"input": "2 + 3"}')), text("5"), text("It is 5."))
    with rollout() as ran:
        await adapter.run(make("boss", tools=[make("helper").as_tool("ask", "Asks.")]), "?")
    assert ran.outline()[3:] == [
        "      llm chat own-model [boss]",
        "      tool ask [boss]",
        "        agent helper [helper]",
        "          turn turn 1 [helper]",
        "            llm chat own-model [helper]",
        "    turn turn 2 [boss]",
        "      llm chat own-model [boss]",
    ]
    assert ran.only("tool").attributes[semconv.TOOL_CALL_ID] == "call_0"


async def test_guardrails_are_spans_and_what_they_ask_a_model_is_theirs(adapter, make, client, stub, rollout):
    async def asks(context: Any, agent: Agent, said: Any) -> GuardrailFunctionOutput:
        await client.responses.create(model="small", input="Is that fine?")
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    guards = {"input_guardrails": [InputGuardrail(asks, "polite", False)]}
    agent = make("solver", **guards, output_guardrails=[OutputGuardrail(asks, "short")])
    with rollout() as ran:
        await adapter.run(agent, "?")
    assert ran.agents() == ["polite", "solver", "short"]
    for name in ("polite", "short"):
        found = ran.only("agent", name)
        assert found.attributes[semconv.STRUCTURE] == "guardrail"
        assert found.attributes["agentlightning.guardrail.tripped"] is False
        assert found.failure is None


async def test_a_guardrail_that_trips_is_no_failure_of_its_own(adapter, make, stub, rollout):
    def trips(context: Any, agent: Agent, said: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput("rude", tripwire_triggered=True)

    agent = make("solver", input_guardrails=[InputGuardrail(trips, "polite", run_in_parallel=False)])
    with rollout() as ran, pytest.raises(InputGuardrailTripwireTriggered):
        await adapter.run(agent, "?")
    guardrail = ran.only("agent", "polite")
    assert (guardrail.failure, guardrail.attributes["agentlightning.guardrail.tripped"]) == (None, True)
    failure = ran.only("agent", "solver").failure
    assert (failure.type, failure.fault) == ("guardrail_tripped", "agent")


class Adder(MCPServer):
    """An MCP server in this process."""

    name = "adder"

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, *_: Any) -> list[Tool]:
        schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
        try:
            return [Tool(name="add", inputSchema=schema)]
        except TypeError:
            return [Tool(name="add", input_schema=schema)]

    async def call_tool(self, tool_name: str, arguments: Any, *_: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=str(arguments["a"] + arguments["b"]))])

    async def list_prompts(self) -> Any: ...

    async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...


async def test_tools_of_an_mcp_server_say_whose_they_are(adapter, make, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2, "b": 3}')), text("5"))
    with rollout() as ran:
        assert await adapter.run(make("solver", mcp_servers=[Adder()]), "?") == "5"
    tool = ran.only("tool", "add")
    assert tool.attributes["agentlightning.mcp.server"] == "adder"
    assert tool.attributes[semconv.TOOL_CALL_ID] == "call_0"
    assert "5" in json.dumps(tool.attributes[semconv.TOOL_CALL_RESULT])
    listed = ran.all("annotation")[0]
    assert (listed.name, listed.attributes) == ("mcp_tools", {"server": "adder", "tools": ["add"]})


async def test_traces_and_custom_spans_of_the_user_hold_what_runs_in_them(make, stub, rollout):
    writer, critic = make("writer"), make("critic")
    with rollout() as ran, trace("office"):
        with custom_span("draft", {"round": 1}):
            await Runner.run(writer, "?")
        await Runner.run(critic, "?")
    assert ran.outline() == [
        "workflow office [office]",
        "  annotation draft [office]",
        "    agent writer [writer]",
        "      turn turn 1 [writer]",
        "        llm chat own-model [writer]",
        "  agent critic [critic]",
        "    turn turn 1 [critic]",
        "      llm chat own-model [critic]",
    ]
    assert ran.only("annotation").attributes == {"round": 1}


async def test_spans_opened_by_hand_and_the_sdks_nest_in_each_other(make, client, stub, rollout):
    with rollout() as ran, span("plan", agent="planner"), trace("office"), span("think"):
        await Runner.run(make("solver"), "?")
        with function_span("look"), span("closely"):
            await client.responses.create(model="small", input="?")
    assert ran.outline() == [
        "agent plan [planner]",
        "  workflow office [office]",
        "    agent think [office]",
        "      agent solver [solver]",
        "        turn turn 1 [solver]",
        "          llm chat own-model [solver]",
        "      tool look [office]",
        "        agent closely [office]",
        "          llm chat small [office]",
    ]


async def test_calls_that_look_the_same_keep_their_own_ids(adapter, make, add, stub, calls, rollout):
    same = ("add", '{"a": 2, "b": 3}')
    stub.reply(calls(same, same, ("add", '{"a": 4, "b": 5}'), same), text("5"))
    with rollout() as ran:
        await adapter.run(make("solver", tools=[add]), "?")
    ids = [tool.attributes[semconv.TOOL_CALL_ID] for tool in ran.all("tool")]
    assert ids == ["call_0", "call_1", "call_2", "call_3"]


async def test_what_traces_may_not_hold_is_recorded_all_the_same(make, add, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2, "b": 3}'), ("add", '{"a": 4, "b": 5}')), text("5"))
    with rollout() as ran:
        await Runner.run(make("solver", tools=[add]), "?", run_config=RunConfig(trace_include_sensitive_data=False))
    tools = [tool.attributes for tool in ran.all("tool")]
    assert [each[semconv.TOOL_CALL_ARGUMENTS] for each in tools] == [{"a": 2, "b": 3}, {"a": 4, "b": 5}]
    assert semconv.TOOL_CALL_RESULT not in tools[0], "the SDK does not tell, and it is in the next request"
    assert [call.generation.response["content"] for call in ran.all("llm")] == [None, "5"]


async def test_without_turns_everything_is_the_agents(make, add, stub, calls, rollout):
    same = ("add", '{"a": 2, "b": 3}')
    stub.reply(calls(same), calls(same, first=1), text("5"))
    config = RunConfig(tracing={"include_task_and_turn_spans": False})
    with rollout() as ran:
        await Runner.run(make("solver", tools=[add]), "?", run_config=config)
    assert [line.strip() for line in ran.outline()[2:]] == [
        "llm chat own-model [solver]",
        "tool add [solver]",
        "llm chat own-model [solver]",
        "tool add [solver]",
        "llm chat own-model [solver]",
    ]
    assert [tool.attributes[semconv.TOOL_CALL_ID] for tool in ran.all("tool")] == ["call_0", "call_1"]


class Canned(Model):
    """A model of another provider, that says what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        with generation_span(model="canned") as told:
            if self._error is not None:
                raise self._error
            told.span_data.input = [{"role": "user", "content": input[0]["content"]}]
            told.span_data.output = [{"role": "assistant", "content": "5"}]
            told.span_data.usage = {"input_tokens": 3, "output_tokens": 1}
        said = ResponseOutputText(text="5", type="output_text", annotations=[])
        message = ResponseOutputMessage(id="m", content=[said], role="assistant", status="completed", type="message")
        return ModelResponse([message], Usage(requests=1), None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


async def test_a_call_of_another_providers_client_is_recorded_as_text(adapter, rollout):
    with rollout() as ran:
        assert await adapter.run(Agent("solver", model=Canned()), "What is 2 + 3?") == "5"
    call = ran.only("llm")
    assert (call.name, call.agent, call.failure) == ("chat canned", "solver", None)
    said = call.generation
    assert said.messages == [{"role": "user", "content": "What is 2 + 3?"}]
    assert said.response == {"role": "assistant", "content": "5"}
    assert (said.provenance, said.model, said.policy) == ("text", "canned", None)
    assert (said.usage.input_tokens, said.usage.output_tokens) == (3, 1)


async def test_a_call_that_another_providers_client_failed_at_is_a_failure(adapter, rollout):
    with rollout() as ran, pytest.raises(RuntimeError, match="no such model"):
        await adapter.run(Agent("solver", model=Canned(RuntimeError("no such model"))), "?")
    call = ran.only("llm")
    assert (call.failure.type, call.failure.exception) == ("agent_error", "builtins.RuntimeError")


class Voting(Canned):
    """A model that asks twice, and takes the last answer."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> ModelResponse:
        with generation_span(model="voting"):
            for _ in range(2):
                answer = await self._client.responses.create(model="small", input=input)
        return ModelResponse(answer.output, Usage(requests=2), None)


async def test_two_requests_of_what_the_sdk_takes_for_one_call_are_beside_each_other(adapter, client, stub, rollout):
    stub.reply(text("5"), text("6"))
    with rollout() as ran:
        assert await adapter.run(Agent("solver", model=Voting(client)), "?") == "6"
    assert ran.outline()[2:] == [
        "    turn turn 1 [solver]",
        "      llm chat small [solver]",
        "      llm chat small [solver]",
    ]
