"""Who did what, and in what: agents, teams, their managers, hand-offs."""

from __future__ import annotations

import asyncio
import json

import pytest
from autogen_agentchat.agents import BaseChatAgent, SocietyOfMindAgent
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.conditions import HandoffTermination
from autogen_agentchat.messages import HandoffMessage, TextMessage
from autogen_agentchat.teams import (
    DiGraphBuilder,
    GraphFlow,
    MagenticOneGroupChat,
    RoundRobinGroupChat,
    SelectorGroupChat,
    Swarm,
)
from autogen_agentchat.tools import AgentTool, TeamTool
from autogen_core import CancellationToken, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler
from autogen_core.models import UserMessage
from stub_answers import Answer, Call, Choice, text, tool_call

import agentlightning as agl
from agentlightning import semconv


async def test_a_team_holds_its_agents(adapter, rollout, assistant):
    team = RoundRobinGroupChat([assistant("writer"), assistant("critic")], name="office", max_turns=3)
    with rollout() as recorded:
        await adapter.run(team, "Write.")
    assert recorded.outline() == [
        "team office [office]",
        "  agent writer [writer]",
        "    llm chat own-model [writer]",
        "  agent critic [critic]",
        "    llm chat own-model [critic]",
        "  agent writer [writer]",
        "    llm chat own-model [writer]",
    ]


async def test_teams_of_one_name_in_one_another_are_told_apart(adapter, rollout, assistant):
    inner = RoundRobinGroupChat([assistant("writer")], max_turns=1)
    with rollout() as recorded:
        await adapter.run(RoundRobinGroupChat([inner], max_turns=1), "Write.")
    assert recorded.outline() == [
        "team RoundRobinGroupChat [RoundRobinGroupChat]",
        "  team RoundRobinGroupChat [RoundRobinGroupChat]",
        "    agent writer [writer]",
        "      llm chat own-model [writer]",
    ]


async def test_a_selectors_call_is_its_managers(adapter, rollout, assistant, endpoint, model):
    endpoint.reply(text("critic"), text("Good."), text("writer"), text("Once upon a time."))
    team = SelectorGroupChat([assistant("writer"), assistant("critic"), assistant("boss")], model, max_turns=2)
    with rollout() as recorded:
        await adapter.run(team, "Write.")
    assert recorded.outline() == [
        "team SelectorGroupChat [SelectorGroupChat]",
        "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
        "    llm chat own-model [SelectorGroupChatManager]",
        "  agent critic [critic]",
        "    llm chat own-model [critic]",
        "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
        "    llm chat own-model [SelectorGroupChatManager]",
        "  agent writer [writer]",
        "    llm chat own-model [writer]",
    ]


async def test_a_selector_function_makes_no_span(adapter, rollout, assistant, model):
    team = SelectorGroupChat(
        [assistant("writer"), assistant("critic")], model, max_turns=1, selector_func=lambda _: "critic"
    )
    with rollout() as recorded:
        await adapter.run(team, "Write.")
    assert recorded.outline() == [
        "team SelectorGroupChat [SelectorGroupChat]",
        "  agent critic [critic]",
        "    llm chat own-model [critic]",
    ]


async def test_an_orchestrators_calls_are_its_own(adapter, rollout, assistant, endpoint, model):
    ledger = {
        name: {"reason": "so", "answer": answer}
        for name, answer in (
            ("is_request_satisfied", True),
            ("is_in_loop", False),
            ("is_progress_being_made", True),
            ("next_speaker", "writer"),
            ("instruction_or_question", "Write."),
        )
    }
    endpoint.reply(text("Facts."), text("A plan."), text(json.dumps(ledger)), text("Done."))
    with rollout() as recorded:
        output = await adapter.run(MagenticOneGroupChat([assistant("writer")], model, name="magentic"), "Write.")
    assert output["messages"][-1]["content"] == "Done."
    assert recorded.outline() == [
        "team magentic [magentic]",
        "  manager MagenticOneOrchestrator [MagenticOneOrchestrator]",
        *["    llm chat own-model [MagenticOneOrchestrator]"] * 4,
    ]


async def test_agents_of_a_graph_work_side_by_side(adapter, rollout, assistant):
    first, left, right = assistant("first"), assistant("left"), assistant("right")
    graph = DiGraphBuilder()
    for agent in (first, left, right):
        graph.add_node(agent)
    graph.add_edge(first, left).add_edge(first, right)
    with rollout() as recorded:
        await adapter.run(GraphFlow([first, left, right], graph=graph.build()), "Go.")
    for name in ("first", "left", "right"):
        agent = recorded.only("agent", name)
        assert agent.parent_id == recorded.only("agent", "GraphFlow").id
        assert [call.agent for call in recorded.all("llm") if call.parent_id == agent.id] == [name]


async def test_a_society_of_mind_holds_its_team(adapter, rollout, assistant, endpoint, model, add):
    """It passes on what its team says; that is told once, where it happened."""
    endpoint.reply(tool_call("add", a=2, b=3), text("5"))
    team = RoundRobinGroupChat([assistant("writer", tools=[add])], name="inner", max_turns=1)
    with rollout() as recorded:
        await adapter.run(SocietyOfMindAgent("society", team, model), "Write.")
    assert recorded.outline() == [
        "agent society [society]",
        "  team inner [inner]",
        "    agent writer [writer]",
        "      llm chat own-model [writer]",
        "      tool add [writer]",
        "  llm chat own-model [society]",
    ]


@pytest.mark.parametrize("as_tool", [AgentTool, TeamTool])
async def test_an_agent_or_a_team_that_is_a_tool(adapter, rollout, assistant, endpoint, as_tool):
    writer = assistant("writer")
    if as_tool is TeamTool:
        tool = TeamTool(RoundRobinGroupChat([writer], max_turns=1), name="writer", description="Writes.")
    else:
        tool = AgentTool(writer)
    endpoint.reply(tool_call("writer", task="Write."), text("Once upon a time."))
    with rollout() as recorded:
        await adapter.run(assistant("boss", tools=[tool]), "Tell a story.")
    called = recorded.only("tool", "writer")
    assert called.agent == "boss"
    assert called.attributes[semconv.TOOL_CALL_ARGUMENTS] == {"task": "Write."}
    assert "Once upon a time." in called.attributes[semconv.TOOL_CALL_RESULT]
    assert [call.agent for call in recorded.all("llm")] == ["boss", "writer"]
    below = [span for span in recorded.spans if span.parent_id == called.id]
    assert [span.kind for span in below] == ["agent"]


async def test_a_hand_off_is_the_call_of_its_tool(adapter, rollout, assistant, endpoint):
    endpoint.reply(tool_call("transfer_to_expert", id="over"), text("5"))
    team = Swarm([assistant("triage", handoffs=["expert"]), assistant("expert")], max_turns=2)
    with rollout() as recorded:
        await adapter.run(team, "What is 2 + 3?")
    assert recorded.outline() == [
        "team Swarm [Swarm]",
        "  agent triage [triage]",
        "    llm chat own-model [triage]",
        "    handoff expert [triage]",
        "  agent expert [expert]",
        "    llm chat own-model [expert]",
    ]
    handoff = recorded.only("handoff")
    assert handoff.attributes[semconv.AGENT_NAME] == "expert"
    assert handoff.attributes[semconv.TOOL_NAME] == "transfer_to_expert"
    assert handoff.attributes[semconv.TOOL_CALL_ID] == "over"
    assert "Transferred to expert" in handoff.attributes[semconv.TOOL_CALL_RESULT]


@pytest.mark.filterwarnings("ignore:Multiple handoffs")
async def test_only_the_first_of_several_hand_offs_is_one(adapter, rollout, assistant, endpoint):
    calls = [Call(f"transfer_to_{name}", "{}", f"call_{name}") for name in ("expert", "user")]
    endpoint.reply(Answer([Choice(None, calls)]))
    with rollout() as recorded:
        await adapter.run(assistant("triage", handoffs=["expert", "user"]), "Hello.")
    assert recorded.only("handoff").name == "expert"
    assert recorded.only("tool").name == "transfer_to_user"


class Porter(BaseChatAgent):
    """Hands over without a model or a tool."""

    produced_message_types = (HandoffMessage,)

    async def on_messages(self, messages, cancellation_token):
        return Response(chat_message=HandoffMessage(source=self.name, target="expert", content="Yours."))

    async def on_reset(self, cancellation_token):
        pass


async def test_a_hand_off_without_a_tool(adapter, rollout, assistant):
    termination = HandoffTermination("nobody")
    team = Swarm([Porter("porter", "Hands over."), assistant("expert")], termination_condition=termination, max_turns=2)
    with rollout() as recorded:
        await adapter.run(team, "Hello.")
    assert recorded.outline() == [
        "team Swarm [Swarm]",
        "  agent porter [porter]",
        "    handoff expert [porter]",
        "  agent expert [expert]",
        "    llm chat own-model [expert]",
    ]


async def test_on_messages_called_by_hand_is_the_agents(rollout, assistant):
    message = TextMessage(content="Hello.", source="user")
    with rollout() as recorded:
        await assistant("first").on_messages([message], CancellationToken())
        async for _ in assistant("second").on_messages_stream([message], CancellationToken()):
            pass
    assert recorded.outline() == [
        "agent first [first]",
        "  llm chat own-model [first]",
        "agent second [second]",
        "  llm chat own-model [second]",
    ]


async def test_a_stream_does_not_leave_its_agent_behind_in_the_consumer(rollout, assistant):
    with rollout() as recorded:
        async for item in RoundRobinGroupChat([assistant("writer")], max_turns=1).run_stream(task="Write."):
            agl.annotate(type(item).__name__)
        agl.annotate("after")
    assert recorded.outline()[0] == "team RoundRobinGroupChat [RoundRobinGroupChat]"
    notes = recorded.all("annotation")
    assert [note.name for note in notes] == ["TextMessage", "TextMessage", "TaskResult", "after"]
    assert {note.parent_id for note in notes} == {None}


async def test_a_stream_that_is_left_early_has_not_failed(rollout, assistant):
    with rollout() as recorded:
        stream = assistant("writer").run_stream(task="Write.")
        async for _ in stream:
            break
        await stream.aclose()
    assert recorded.outline() == ["agent writer [writer]"]


async def test_a_span_opened_by_hand_holds_what_is_run_in_it(rollout, assistant, endpoint):
    async def plan() -> str:
        """Plans."""
        async with agl.span("plan", agent="planner"):
            result: TaskResult = await assistant("writer").run(task="Write.")
        return result.messages[-1].to_text()

    endpoint.reply(tool_call("plan"), text("Once upon a time."))
    with rollout() as recorded:
        async with agl.span("outside"):
            await assistant("boss", tools=[plan]).run(task="Go.")
    assert recorded.outline() == [
        "agent outside [None]",
        "  agent boss [boss]",
        "    llm chat own-model [boss]",
        "    tool plan [boss]",
        "      agent plan [planner]",
        "        agent writer [writer]",
        "          llm chat own-model [writer]",
    ]


async def test_a_runtime_started_outside_of_the_rollout_is_followed(rollout, assistant, endpoint, model):
    endpoint.reply(text("writer"), text("Once upon a time."))
    runtime = SingleThreadedAgentRuntime()
    runtime.start()
    agents = [assistant("writer"), assistant("critic")]
    with rollout() as recorded:
        await SelectorGroupChat(agents, model, max_turns=1, runtime=runtime).run(task="Write.")
    await runtime.stop()
    assert recorded.outline() == [
        "team SelectorGroupChat [SelectorGroupChat]",
        "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
        "    llm chat own-model [SelectorGroupChatManager]",
        "  agent writer [writer]",
        "    llm chat own-model [writer]",
    ]


class Echo(RoutedAgent):
    """An agent of autogen-core, without AgentChat."""

    def __init__(self, model) -> None:
        super().__init__("Says something.")
        self._model = model

    @message_handler
    async def handle(self, message: TextMessage, ctx: MessageContext) -> TextMessage:
        said = await self._model.create([UserMessage(content=message.content, source="user")])
        return TextMessage(content=str(said.content), source="echo")


async def test_an_agent_of_the_core_api_is_an_agent(rollout, model):
    with rollout() as recorded:
        runtime = SingleThreadedAgentRuntime()
        await Echo.register(runtime, "echo", lambda: Echo(model))
        runtime.start()
        agent_id = await runtime.get("echo")
        await runtime.send_message(TextMessage(content="Hello.", source="user"), agent_id)
        await runtime.stop_when_idle()
    assert recorded.outline() == ["agent echo [echo]", "  llm chat own-model [echo]"]


class Waits(RoutedAgent):
    """An agent of autogen-core that has a thread do something, and asks no model."""

    @message_handler
    async def handle(self, message: TextMessage, ctx: MessageContext) -> None:
        await asyncio.get_running_loop().run_in_executor(None, str.upper, message.content)


async def test_a_thread_makes_the_handling_of_a_message_no_span(rollout):
    with rollout() as recorded:
        runtime = SingleThreadedAgentRuntime()
        await Waits.register(runtime, "waits", lambda: Waits("Waits."))
        runtime.start()
        await runtime.send_message(TextMessage(content="Hello.", source="user"), await runtime.get("waits"))
        await runtime.stop_when_idle()
    assert recorded.outline() == []


async def test_teams_at_once_keep_apart(adapter, rollout, assistant, endpoint):
    endpoint.reply(lambda request: text(f"I read {len(request.json['messages'])}: {request.json['messages'][-1]}"))
    team = RoundRobinGroupChat([assistant("writer"), assistant("critic")], max_turns=4)

    async def one(number):
        with rollout(f"r{number}") as recorded:
            output = await adapter.run(team, f"task {number}.")
        return output, recorded

    results = await asyncio.gather(*(one(number) for number in range(64)))
    for number, (output, recorded) in enumerate(results):
        assert f"task {number}." in output["messages"][0]["content"]
        assert [call.agent for call in recorded.all("llm")] == ["writer", "critic"] * 2
        for call in recorded.all("llm"):
            tasks = [said["content"] for said in call.generation.messages if said["content"].startswith("task ")]
            assert tasks == [f"task {number}."]
        assert len(recorded.spans) == 1 + 4 + 4
    assert len(endpoint.requests) == 64 * 4
