"""LangGraph: a supervisor with named agents, a swarm, an approval by interrupt and resume, tokens read and left."""

from __future__ import annotations

from typing import Annotated, Any

from adapters.framework import KEY, MODEL, add
from adapters.patterns.pattern import Pattern
from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, create_react_agent
from langgraph.types import Command, interrupt
from stub_answers import text, tool_call


def model(base_url: str) -> Any:
    return ChatOpenAI(model=MODEL, base_url=base_url, api_key=KEY, max_retries=0)


def transfer_to(agent: str) -> Any:
    """A tool that sends the graph above on to another agent, with what was said so far."""

    @tool(f"transfer_to_{agent}")
    def transfer(state: Annotated[Any, InjectedState], tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Hands the conversation over."""
        done = ToolMessage(f"Over to {agent}.", tool_call_id=tool_call_id)
        return Command(goto=agent, graph=Command.PARENT, update={"messages": [*state["messages"], done]})

    return transfer


def supervisor(base_url: str) -> Any:
    """A supervisor sends work to agents, which are run by functions and give their last word back to it."""

    def worker(agent: Any) -> Any:
        async def work(state: MessagesState) -> dict[str, Any]:
            return {"messages": (await agent.ainvoke(state))["messages"][-1:]}

        return work

    chat = model(base_url)
    boss = create_react_agent(chat, [transfer_to("adder"), transfer_to("poet")], name="supervisor")
    graph = StateGraph(MessagesState)
    graph.add_node("supervisor", boss, destinations=("adder", "poet"))
    for agent in (create_react_agent(chat, [add], name="adder"), create_react_agent(chat, [], name="poet")):
        graph.add_node(agent.name, worker(agent))
        graph.add_edge(agent.name, "supervisor")
    graph.add_edge(START, "supervisor")
    return graph.compile(name="office")


def swarm(base_url: str) -> Any:
    """Agents that hand over to each other, with nobody above them."""
    chat = model(base_url)
    graph = StateGraph(MessagesState)
    alice = create_agent(chat, [transfer_to("bob")], system_prompt="You are Alice.", name="alice")
    bob = create_agent(chat, [add, transfer_to("alice")], system_prompt="You are Bob.", name="bob")
    graph.add_node("alice", alice, destinations=("bob",))
    graph.add_node("bob", bob, destinations=("alice",))
    graph.add_edge(START, "alice")
    return graph.compile()


def approval(base_url: str) -> Any:
    """A tool asks before it acts; whoever runs the graph answers, and has it go on."""

    @tool
    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}" if interrupt(f"Pay {amount}?") == "yes" else "not paid"

    async def desk(question: str) -> str:
        clerk = create_react_agent(model(base_url), [pay], name="clerk", checkpointer=InMemorySaver())
        thread: Any = {"configurable": {"thread_id": "1"}}
        state = await clerk.ainvoke({"messages": [("user", question)]}, thread)
        while state.get("__interrupt__"):
            state = await clerk.ainvoke(Command(resume="yes"), thread)
        return str(state["messages"][-1].content)

    return desk


def first_words(base_url: str) -> Any:
    """Tokens are streamed out of the nodes, and the reader has enough of them."""

    async def read(question: str) -> str:
        graph = StateGraph(MessagesState)
        graph.add_node("desk", create_agent(model(base_url), [], name="teller"))
        graph.add_edge(START, "desk")
        office = graph.compile(name="office")
        said = ""
        stream = office.astream({"messages": [("user", question)]}, stream_mode="messages", subgraphs=True)
        async for _, (chunk, _) in stream:
            said += chunk.content
            if said:
                break
        return said

    return read


PATTERNS = {
    "supervisor": Pattern(
        make=supervisor,
        answers=[
            tool_call("transfer_to_adder", id="call_1"),
            tool_call("add", id="call_2", a=2, b=3),
            text("It is 5."),
            text("The adder says 5."),
        ],
        output="The adder says 5.",
        outline=[
            "graph office [office]",
            "  node supervisor [supervisor]",
            "    agent supervisor [supervisor]",
            "      node agent [supervisor]",
            "        llm chat policy [supervisor]",
            "      node tools [supervisor]",
            "        tool transfer_to_adder [supervisor]",
            "  node adder [adder]",
            "    agent adder [adder]",
            "      node agent [adder]",
            "        llm chat policy [adder]",
            "      node tools [adder]",
            "        tool add [adder]",
            "      node agent [adder]",
            "        llm chat policy [adder]",
            "  node supervisor [supervisor]",
            "    agent supervisor [supervisor]",
            "      node agent [supervisor]",
            "        llm chat policy [supervisor]",
        ],
        tools=[("transfer_to_adder", "call_1", ..., ...), ("add", "call_2", {"a": 2, "b": 3}, "5")],
    ),
    "swarm": Pattern(
        make=swarm,
        answers=[
            tool_call("transfer_to_bob", id="call_1"),
            tool_call("add", id="call_2", a=2, b=3),
            text("It is 5."),
        ],
        output="It is 5.",
        outline=[
            "graph LangGraph [LangGraph]",
            "  node alice [alice]",
            "    agent alice [alice]",
            "      node model [alice]",
            "        llm chat policy [alice]",
            "      node tools [alice]",
            "        tool transfer_to_bob [alice]",
            "  node bob [bob]",
            "    agent bob [bob]",
            "      node model [bob]",
            "        llm chat policy [bob]",
            "      node tools [bob]",
            "        tool add [bob]",
            "      node model [bob]",
            "        llm chat policy [bob]",
        ],
        tools=[("transfer_to_bob", "call_1", ..., ...), ("add", "call_2", {"a": 2, "b": 3}, "5")],
    ),
    "approval": Pattern(
        make=approval,
        answers=[tool_call("pay", id="call_1", amount=7), text("It is paid.")],
        output="It is paid.",
        outline=[
            "function desk [desk]",
            "  agent clerk [clerk]",
            "    node agent [clerk]",
            "      llm chat policy [clerk]",
            "    node tools [clerk]",
            "      tool pay [clerk]",
            "  agent clerk [clerk]",
            "    node tools [clerk]",
            "    node agent [clerk]",
            "      llm chat policy [clerk]",
        ],
        tools=[("pay", "call_1", {"amount": 7}, "paid 7")],
    ),
    "first_words": Pattern(
        make=first_words,
        answers=[text("One, two, three, four, five.")],
        output="O",
        outline=[
            "function read [read]",
            "  graph office [office]",
            "    node desk [desk]",
            "      agent teller [teller]",
            "        node model [teller]",
            "          llm chat policy [teller]",
        ],
        left=True,
    ),
}
