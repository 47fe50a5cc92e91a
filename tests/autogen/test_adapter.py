"""Which objects are agents, what goes in and comes out, and what the hooks leave behind."""

from __future__ import annotations

import inspect
import json
import logging

import pytest
import wrapt
from autogen_agentchat.agents import AssistantAgent, BaseChatAgent
from autogen_agentchat.base import ChatAgent, Team
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import BaseGroupChat, RoundRobinGroupChat, SelectorGroupChat
from autogen_core import MessageHandlerContext
from autogen_core.memory import ListMemory, MemoryContent
from autogen_core.tools import BaseTool, FunctionTool
from pydantic import BaseModel
from stub_answers import text, tool_call

import agentlightning.adapter
from agentlightning import semconv
from agentlightning.errors import AdapterError
from agentlightning.recording import Recorder
from agentlightning_autogen import hooks, internals
from agentlightning_autogen.adapter import AutoGenAdapter


def test_agents_and_teams_are_accepted(adapter, assistant):
    agent = assistant("solver")
    for accepted in (agent, RoundRobinGroupChat([agent])):
        assert adapter.accepts(accepted)
    for refused in ("solver", AssistantAgent, lambda task: task, agent._model_client):
        assert not adapter.accepts(refused)


@pytest.mark.parametrize(
    "task",
    [
        "Hello.",
        TextMessage(content="Hello.", source="user"),
        [TextMessage(content="Hello.", source="user")],
        [{"role": "user", "content": "Hello."}],
    ],
    ids=["text", "message", "messages", "chat"],
)
@pytest.mark.parametrize("in_team", [False, True])
async def test_a_text_or_messages_are_the_task(adapter, assistant, endpoint, task, in_team):
    agent = assistant("solver")
    await adapter.run(RoundRobinGroupChat([agent], max_turns=1) if in_team else agent, task)
    (request,) = endpoint.requests
    assert request.json["messages"][1:] == [{"content": "Hello.", "role": "user", "name": "user"}]


@pytest.mark.parametrize("task", [{"question": "Hello."}, 3, None, [], [3], [{"role": "user"}], b"Hello."])
async def test_any_other_input_is_refused_in_words(adapter, assistant, task):
    with pytest.raises(AdapterError, match=r"takes a text or a list of messages.*give each task an input such as"):
        await adapter.run(assistant("solver"), task)


async def test_the_output_is_plain_data_with_the_answer_last(adapter, assistant, endpoint, add):
    memory = ListMemory()
    await memory.add(MemoryContent(content="a fact", mime_type="text/plain"))
    endpoint.reply(tool_call("add", a=2, b=3), text("It is 5."))
    solver = assistant("solver", tools=[add], memory=[memory], reflect_on_tool_use=True)
    output = await adapter.run(solver, "What is 2 + 3?")
    assert json.loads(json.dumps(output)) == output
    assert output["stop_reason"] is None
    types = [message["type"] for message in output["messages"]]
    assert types == ["TextMessage", "MemoryQueryEvent", "ToolCallRequestEvent", "ToolCallExecutionEvent", "TextMessage"]
    assert output["messages"][0] == {
        "role": "user",
        "name": "user",
        "type": "TextMessage",
        "content": "What is 2 + 3?",
    }
    assert output["messages"][-1]["content"] == "It is 5."


class Sum(BaseModel):
    value: int


async def test_a_structured_answer_is_a_mapping(adapter, assistant, endpoint):
    endpoint.reply(text('{"value": 5}'))
    output = await adapter.run(assistant("solver", output_content_type=Sum), "What is 2 + 3?")
    last = output["messages"][-1]
    assert (last["type"], last["content"]) == ("StructuredMessage", {"value": 5})


def everything_hooked():
    """Each function of AutoGen's that a hook may take the place of."""
    found = {("context", "populate_context"): vars(MessageHandlerContext)["populate_context"]}
    for base in (ChatAgent, Team, BaseTool):
        for kind in hooks._family(base):
            for name in (*hooks.AGENT_METHODS, *hooks.TOOL_METHODS):
                if name in vars(kind):
                    found[kind, name] = vars(kind)[name]
    return found


def test_hooks_are_put_in_once_and_leave_no_trace():
    adapter = AutoGenAdapter()
    before = everything_hooked()
    adapter.install()
    once = everything_hooked()
    adapter.install()
    assert everything_hooked() == once
    changed = {key for key in before if once[key] is not before[key]}
    assert {("context", "populate_context"), (BaseChatAgent, "run"), (BaseGroupChat, "run_stream")} <= changed
    adapter.uninstall()
    adapter.uninstall()
    assert all(after is before[key] for key, after in everything_hooked().items())


def test_hooks_keep_signatures(adapter):
    assert list(inspect.signature(BaseGroupChat.run).parameters) == [
        "self",
        "task",
        "cancellation_token",
        "output_task_messages",
    ]
    assert inspect.iscoroutinefunction(FunctionTool.run_json)
    assert AssistantAgent.on_messages_stream.__doc__


async def test_a_class_written_after_the_hooks_is_hooked(adapter, rollout, assistant):
    class Late(AssistantAgent):
        async def on_messages(self, messages, cancellation_token):
            return await super().on_messages(messages, cancellation_token)

    with rollout() as recorded:
        await adapter.run(Late("late", assistant("solver")._model_client), "Hello.")
    assert recorded.outline() == ["agent late [late]", "  llm chat own-model [late]"]
    assert isinstance(vars(Late)["on_messages"], wrapt.FunctionWrapper)


async def test_another_version_has_no_hooks_and_one_warning(rollout, adapter, assistant, monkeypatch, caplog):
    adapter.uninstall()
    monkeypatch.setattr(agentlightning.adapter, "version", lambda _: "0.9.0")
    agentlightning.adapter.supports.cache_clear()
    for _ in range(2):
        adapter.install()
    with rollout() as recorded:
        output = await adapter.run(RoundRobinGroupChat([assistant("writer")], max_turns=1), "Write.")
    agentlightning.adapter.supports.cache_clear()
    assert output["messages"][-1]["content"] == "Hello."
    assert [span.kind for span in recorded.spans] == ["llm"]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "autogen-agentchat 0.9.0 is outside of the supported versions" in warning.getMessage()


async def test_without_the_private_names_less_is_recorded(rollout, adapter, assistant, endpoint, model, monkeypatch):
    adapter.uninstall()
    monkeypatch.setattr(internals, "HANDLER_METHOD", "gone")
    monkeypatch.setattr(internals, "team_id", lambda _: None)
    monkeypatch.setattr(internals, "handoffs", lambda _: {})
    adapter.install()
    endpoint.reply(text("writer"), tool_call("transfer_to_critic"))
    agents = [assistant("writer", handoffs=["critic"]), assistant("critic")]
    with rollout() as recorded:
        await adapter.run(SelectorGroupChat(agents, model, max_turns=1, name="team"), "Write.")
    assert recorded.outline() == [
        "team team [team]",
        "  llm chat own-model [team]",
        "  agent writer [writer]",
        "    llm chat own-model [writer]",
        "    tool transfer_to_critic [writer]",
        "    handoff critic [writer]",
    ]


async def test_a_hook_that_raises_breaks_no_team(rollout, adapter, assistant, endpoint, model, add, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a hook of ours is broken")

    endpoint.reply(text("solver"), tool_call("add", a=2, b=3), text("It is 5."))
    memory = ListMemory()
    solver = assistant("solver", tools=[add], memory=[memory], reflect_on_tool_use=True)
    team = SelectorGroupChat([solver, assistant("critic")], model, max_turns=1)
    monkeypatch.setattr(Recorder, "start", broken)
    monkeypatch.setattr(Recorder, "end", broken)
    with rollout():
        output = await adapter.run(team, "Add.")
    assert output["messages"][-1]["content"] == "It is 5."


async def test_a_stranger_in_the_message_stream_is_no_matter(rollout, adapter, assistant):
    class Odd(AssistantAgent):
        async def on_messages_stream(self, messages, cancellation_token):
            yield object()
            async for item in super().on_messages_stream(messages, cancellation_token):
                yield item

    odd = Odd("odd", assistant("solver")._model_client)
    with rollout() as recorded:
        await adapter.run(odd, "Hello.")
    assert recorded.only("agent").attributes[semconv.STRUCTURE] == "agent"
