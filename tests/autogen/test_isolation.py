"""Each rollout has agents of its own, and the user's stay as they are."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import pytest
from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination, TimeoutTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from autogen_agentchat.tools import AgentTool
from autogen_core.memory import ListMemory, MemoryContent
from autogen_core.model_context import BufferedChatCompletionContext
from stub_answers import text, tool_call

from agentlightning_autogen.isolation import isolated


def asked(endpoint) -> list[list[str]]:
    """What each request said, in order, without the system message."""
    return [[said["content"] for said in request.json["messages"][1:]] for request in endpoint.requests]


async def test_a_second_run_does_not_see_the_first(adapter, assistant, endpoint):
    agent = assistant("solver", model_context=BufferedChatCompletionContext(8))
    for task in ("first", "second"):
        await adapter.run(agent, task)
    assert asked(endpoint) == [["first"], ["second"]]


async def test_a_team_starts_anew_each_time(adapter, assistant, endpoint):
    ends = MaxMessageTermination(3) | TextMentionTermination("never")
    team = RoundRobinGroupChat([assistant("writer"), assistant("critic")], termination_condition=ends)
    outputs = [await adapter.run(team, "Write.") for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert [message["name"] for message in outputs[0]["messages"]] == ["user", "writer", "critic"]
    assert asked(endpoint)[:2] == asked(endpoint)[2:]


async def test_a_team_that_has_run_is_copied_with_what_was_said(adapter, assistant, endpoint):
    agent = assistant("writer")
    team = RoundRobinGroupChat([agent], max_turns=1)
    await team.run(task="Before.")
    await adapter.run(team, "Then.")
    await adapter.run(team, "Then.")
    assert asked(endpoint)[1] == asked(endpoint)[2] == ["Before.", "Hello.", "Then."]
    assert len(await agent.model_context.get_messages()) == 2


async def test_a_selectors_context_is_copied(adapter, assistant, endpoint, model):
    context = BufferedChatCompletionContext(8)
    team = SelectorGroupChat([assistant("a"), assistant("b")], model, max_turns=1, model_context=context)
    endpoint.reply(text("a"), text("Yes."), text("b"), text("Yes."))
    for task in ("first", "second"):
        await adapter.run(team, task)
    assert await context.get_messages() == []
    assert "first" not in str(asked(endpoint)[3])


async def test_an_agent_in_a_tool_is_copied(adapter, assistant, endpoint):
    writer = assistant("writer")
    boss = assistant("boss", tools=[AgentTool(writer)])
    endpoint.reply(*[tool_call("writer", task="Write."), text("Done.")] * 2)
    for _ in range(2):
        await adapter.run(boss, "Go.")
    assert asked(endpoint)[1] == asked(endpoint)[3] == ["Write."]
    assert await writer.model_context.get_messages() == []


async def test_what_one_rollout_remembers_no_other_does(adapter, assistant, endpoint):
    memory = ListMemory()

    async def remember(fact: str) -> str:
        """Remembers."""
        return fact

    agent = assistant("solver", memory=[memory], tools=[remember])
    copied = await isolated(agent)
    await copied._memory[0].add(MemoryContent(content="a fact", mime_type="text/plain"))
    assert memory.content == []
    assert copied._memory[0] is not memory


async def test_the_model_client_is_shared(assistant, model):
    copied = await isolated(RoundRobinGroupChat([assistant("a"), assistant("b")]))
    assert {id(agent._model_client) for agent in copied._participants} == {id(model)}


async def test_a_time_limit_runs_from_the_start_of_the_rollout(adapter, assistant):
    limit = TimeoutTermination(60)
    limit._start_time -= 3600  # the team was made an hour ago
    team = RoundRobinGroupChat([assistant("a"), assistant("b")], termination_condition=limit, max_turns=2)
    output = await adapter.run(team, "Go.")
    assert output["stop_reason"] == "Maximum number of turns 2 reached."


class Board:
    """Not of AutoGen's, nor a plain collection."""

    def __init__(self) -> None:
        self.notes: list[str] = []


@dataclass
class Counts:
    seen: int = 0
    words: set[str] = field(default_factory=set)


class Clerk(BaseChatAgent):
    """Keeps all kinds of state."""

    produced_message_types = (TextMessage,)

    def __init__(self) -> None:
        super().__init__("clerk", "Keeps notes.")
        self.board = Board()
        self.counts = Counts()
        self.log: dict[str, list[str]] = {"all": []}
        self.hook = self.note
        self.me = self

    def note(self, text: str) -> None:
        self.board.notes.append(text)
        self.counts.seen += 1
        self.counts.words |= set(text.split())
        self.log["all"].append(text)

    async def on_messages(self, messages, cancellation_token):
        self.hook(messages[-1].to_text())
        assert self.me is self
        said = f"{self.board.notes} {self.counts.seen} {sorted(self.counts.words)} {self.log['all']}"
        return Response(chat_message=TextMessage(source=self.name, content=said))

    async def on_reset(self, cancellation_token):
        pass


async def test_an_agents_own_objects_are_copied(adapter):
    clerk = Clerk()
    outputs = [await adapter.run(clerk, task) for task in ("one", "two")]
    assert [output["messages"][-1]["content"] for output in outputs] == [
        "['one'] 1 ['one'] ['one']",
        "['two'] 1 ['two'] ['two']",
    ]
    assert (clerk.board.notes, clerk.counts.seen, clerk.log) == ([], 0, {"all": []})


class Asking(Clerk):
    """Keeps a method of another agent, which is hooked."""

    def __init__(self, other) -> None:
        super().__init__()
        self.ask = other.on_messages

    async def on_messages(self, messages, cancellation_token):
        return await self.ask(messages, cancellation_token)


async def test_a_method_that_an_agent_keeps_is_its_copys_and_recorded(adapter, rollout):
    helper = Clerk()
    with rollout() as recorded:
        for _ in range(2):
            await adapter.run(Asking(helper), "Hello.")
    assert recorded.outline() == ["agent clerk [clerk]", "  agent clerk [clerk]"] * 2
    assert helper.board.notes == []


class Connection:
    """Something that must not be closed twice."""

    closed = 0

    def __del__(self) -> None:
        type(self).closed += 1


async def test_what_cleans_up_after_itself_is_shared():
    clerk = Clerk()
    clerk.connection = Connection()
    copied = await isolated(clerk)
    assert copied.connection is clerk.connection
    del copied
    gc.collect()
    assert Connection.closed == 0


async def test_what_cannot_be_copied_is_shared():
    class Stubborn(Board):
        def __reduce_ex__(self, protocol):
            raise TypeError("not me")

    Stubborn.__module__ = Clerk.__module__
    clerk = Clerk()
    clerk.board = Stubborn()
    copied = await isolated(clerk)
    assert copied.board is clerk.board


@pytest.mark.parametrize("name", ["_participants", "_message_factory"])
async def test_a_team_that_autogen_keeps_otherwise_is_refused(adapter, assistant, name):
    from agentlightning.errors import AdapterError

    team = RoundRobinGroupChat([assistant("a")], max_turns=1)
    delattr(team, name)
    with pytest.raises(AdapterError, match="name an async function"):
        await adapter.run(team, "Go.")
