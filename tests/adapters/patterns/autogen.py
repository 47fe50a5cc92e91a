"""AutoGen: a selector's group chat, a swarm, the core API with a tool agent, a team's stream that is left."""

from __future__ import annotations

from typing import Any

from adapters.framework import add
from adapters.patterns.autogen_core import core, model
from adapters.patterns.pattern import Pattern
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat, Swarm
from stub_answers import text, tool_call


def selector(base_url: str) -> Any:
    """A planner breaks the task up, an analyst works it out, and a model picks who is next."""
    client = model(base_url)
    planner = AssistantAgent("planner", client, description="Plans.", system_message="Plan. Say DONE at the end.")
    analyst = AssistantAgent("analyst", client, description="Adds.", tools=[add], reflect_on_tool_use=True)
    poet = AssistantAgent("poet", client, description="Writes verse.")
    stop = TextMentionTermination("DONE") | MaxMessageTermination(10)
    return SelectorGroupChat(
        [planner, analyst, poet],
        client,
        name="office",
        termination_condition=stop,
        selector_prompt="Who of {participants} speaks next?\n{roles}\n{history}",
        allow_repeated_speaker=True,
    )


def swarm(base_url: str) -> Any:
    """Travel agents that hand over by tools, and give back what is done."""
    client = model(base_url)
    desk = AssistantAgent("desk", client, handoffs=["adder"], system_message="Hand over; say DONE at the end.")
    adder = AssistantAgent("adder", client, handoffs=["desk"], tools=[add], system_message="Add, then hand back.")
    return Swarm([desk, adder], name="travel", termination_condition=TextMentionTermination("DONE"))


def first_words(base_url: str) -> Any:
    """A team's words are streamed, and the reader has enough of them."""

    async def read(question: str) -> str:
        teller = AssistantAgent("teller", model(base_url), model_client_stream=True)
        async for event in RoundRobinGroupChat([teller], name="team", max_turns=1).run_stream(task=question):
            if isinstance(event, ModelClientStreamingChunkEvent):
                return event.content
        return ""

    return read


PATTERNS = {
    "selector": Pattern(
        make=selector,
        answers=[
            text("planner"),
            text("The analyst adds 2 and 3."),
            text("analyst"),
            tool_call("add", id="call_1", a=2, b=3),
            text("It is 5."),
            text("planner"),
            text("5. DONE"),
        ],
        output="5. DONE",
        outline=[
            "team office [office]",
            "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
            "    llm chat policy [SelectorGroupChatManager]",
            "  agent planner [planner]",
            "    llm chat policy [planner]",
            "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
            "    llm chat policy [SelectorGroupChatManager]",
            "  agent analyst [analyst]",
            "    llm chat policy [analyst]",
            "    tool add [analyst]",
            "    llm chat policy [analyst]",
            "  manager SelectorGroupChatManager [SelectorGroupChatManager]",
            "    llm chat policy [SelectorGroupChatManager]",
            "  agent planner [planner]",
            "    llm chat policy [planner]",
        ],
        tools=[("add", "call_1", {"a": 2, "b": 3}, 5)],
    ),
    "swarm": Pattern(
        make=swarm,
        answers=[
            tool_call("transfer_to_adder", id="call_1"),
            tool_call("add", id="call_2", a=2, b=3),
            tool_call("transfer_to_desk", id="call_3"),
            text("It is 5. DONE"),
        ],
        output="It is 5. DONE",
        outline=[
            "team travel [travel]",
            "  agent desk [desk]",
            "    llm chat policy [desk]",
            "    handoff adder [desk]",
            "  agent adder [adder]",
            "    llm chat policy [adder]",
            "    tool add [adder]",
            "  agent adder [adder]",
            "    llm chat policy [adder]",
            "    handoff desk [adder]",
            "  agent desk [desk]",
            "    llm chat policy [desk]",
        ],
        tools=[
            ("adder", "call_1", {}, ...),
            ("add", "call_2", {"a": 2, "b": 3}, 5),
            ("desk", "call_3", {}, ...),
        ],
    ),
    "core": Pattern(
        make=core,
        answers=[tool_call("add", id="call_1", a=2, b=3), text("It is 5.")],
        output="It is 5.",
        outline=[
            "function solve [solve]",
            "  agent helper [helper]",
            "    llm chat policy [helper]",
            "  agent tools [tools]",
            "    tool add [tools]",
            "    llm chat policy [helper]",
        ],
        tools=[("add", "call_1", {"a": 2, "b": 3}, 5)],
    ),
    "first_words": Pattern(
        make=first_words,
        answers=[text("One, two, three, four, five.")],
        output="O",
        outline=[
            "function read [read]",
            "  team team [team]",
            "    agent teller [teller]",
            "      llm chat policy [teller]",
        ],
        left=True,
    ),
}
