"""Tools, as they run, and as their agent tells of them; memories."""

from __future__ import annotations

import openai
import pytest
from autogen_core.memory import ListMemory, Memory, MemoryContent, MemoryQueryResult, UpdateContextResult
from autogen_core.tools import BaseStreamTool, TextResultContent, ToolResult, Workbench
from pydantic import BaseModel
from stub_answers import Answer, Call, Choice, text, tool_call

from agentlightning import semconv


async def test_a_tool_with_its_arguments_and_result(adapter, rollout, assistant, endpoint, add):
    endpoint.reply(tool_call("add", id="sum", a=2, b=3))
    with rollout() as recorded:
        output = await adapter.run(assistant("solver", tools=[add]), "What is 2 + 3?")
    assert output["messages"][-1]["content"] == "5"
    assert recorded.only("tool", "add").attributes == {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "add",
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: "sum",
        semconv.TOOL_CALL_ARGUMENTS: {"a": 2, "b": 3},
        semconv.TOOL_CALL_RESULT: 5,
    }


async def test_the_same_call_id_in_a_later_iteration_is_another_call(adapter, rollout, assistant, endpoint, add):
    endpoint.reply(tool_call("add", a=2, b=3), tool_call("add", a=4, b=5), text("9"))
    with rollout() as recorded:
        await adapter.run(assistant("solver", tools=[add], max_tool_iterations=3), "Add twice.")
    assert [tool.attributes[semconv.TOOL_CALL_RESULT] for tool in recorded.all("tool")] == [5, 9]


@pytest.mark.parametrize("arguments", ['{"a": -1, "b": 3}', '{"a": "many"}'])
async def test_a_tool_that_raises_fails_and_its_agent_does_not(adapter, rollout, assistant, endpoint, add, arguments):
    endpoint.reply(Answer([Choice(None, [Call("add", arguments)])]))
    with rollout() as recorded:
        await adapter.run(assistant("solver", tools=[add]), "Add.")
    assert recorded.outline() == [
        "agent solver [solver]",
        "  llm chat own-model [solver]",
        "  tool add [solver] !tool_error",
    ]
    failure = recorded.only("tool").failure
    assert failure.exception in ("builtins.ValueError", "pydantic_core._pydantic_core.ValidationError")
    assert failure.fault == "agent"


@pytest.mark.parametrize(
    ("name", "arguments", "recorded_arguments"),
    [("subtract", '{"a": 1}', {"a": 1}), ("add", '{"a": 1,', '{"a": 1,')],
    ids=["unknown tool", "no JSON"],
)
async def test_a_call_that_reaches_no_tool(
    adapter, rollout, assistant, endpoint, add, name, arguments, recorded_arguments
):
    endpoint.reply(Answer([Choice(None, [Call(name, arguments)])]))
    with rollout() as recorded:
        await adapter.run(assistant("solver", tools=[add]), "Add.")
    tool = recorded.only("tool", name)
    assert tool.failure.type == "tool_error"
    assert "Error" in tool.failure.message
    assert tool.attributes[semconv.TOOL_CALL_ARGUMENTS] == recorded_arguments


class Elsewhere(Workbench):
    """A workbench whose tools run in another process, as MCP's do."""

    component_type = "workbench"

    async def list_tools(self):
        return [{"name": "look_up", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}]

    async def call_tool(self, name, arguments=None, cancellation_token=None, call_id=None):
        return ToolResult(name=name, result=[TextResultContent(content="it is 7")], is_error=False)

    async def start(self):
        pass

    stop = reset = start

    async def save_state(self):
        return {}

    async def load_state(self, state):
        pass


async def test_a_tool_that_runs_elsewhere(adapter, rollout, assistant, endpoint):
    endpoint.reply(tool_call("look_up", id="seven", word="it"))
    with rollout() as recorded:
        await adapter.run(assistant("solver", workbench=Elsewhere()), "Look it up.")
    tool = recorded.only("tool", "look_up")
    assert tool.failure is None
    assert tool.attributes[semconv.TOOL_CALL_ID] == "seven"
    assert tool.attributes[semconv.TOOL_CALL_ARGUMENTS] == {"word": "it"}
    assert tool.attributes[semconv.TOOL_CALL_RESULT] == "it is 7"
    assert recorded.only("llm").ended_at <= tool.started_at <= tool.ended_at


class Words(BaseModel):
    words: str


class Counting(BaseStreamTool[Words, Words, Words]):
    def __init__(self) -> None:
        super().__init__(Words, Words, "count", "Counts words.")

    async def run(self, args, cancellation_token):
        raise NotImplementedError

    async def run_stream(self, args, cancellation_token):
        for end in range(1, len(args.words.split()) + 1):
            yield Words(words=str(end))


@pytest.mark.filterwarnings("ignore:Unexpected event type")
async def test_a_tool_that_streams(adapter, rollout, assistant, endpoint):
    endpoint.reply(tool_call("count", words="one two three"))
    with rollout() as recorded:
        await adapter.run(assistant("solver", tools=[Counting()]), "Count.")
    assert recorded.only("tool", "count").attributes[semconv.TOOL_CALL_RESULT] == '{"words": "3"}'


async def test_a_plain_function_that_calls_a_model_keeps_its_rollout(adapter, rollout, assistant, endpoint):
    def ask(question: str) -> str:
        """Asks another model; AutoGen runs it in a thread of the event loop's pool."""
        client = openai.OpenAI(base_url=endpoint.base_url, api_key="sk-own")
        messages = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="other", messages=messages).choices[0].message.content

    endpoint.reply(tool_call("ask", question="Why?"), text("Because."))
    with rollout() as recorded:
        await adapter.run(assistant("solver", tools=[ask]), "Ask.")
    assert recorded.outline() == [
        "agent solver [solver]",
        "  llm chat own-model [solver]",
        "  tool ask [solver]",
        "    llm chat other [solver]",
    ]


async def test_a_memory_is_read_before_the_model_is_called(adapter, rollout, assistant):
    memory = ListMemory("facts")
    await memory.add(MemoryContent(content="Use metric units.", mime_type="text/plain", metadata={"from": "user"}))
    with rollout() as recorded:
        await adapter.run(assistant("solver", memory=[memory]), "How far?")
    assert recorded.outline() == [
        "agent solver [solver]",
        "  retrieval facts [solver]",
        "  llm chat own-model [solver]",
    ]
    found = recorded.only("retrieval").attributes
    assert found[semconv.RETRIEVAL_DOCUMENTS] == [{"content": "Use metric units.", "metadata": {"from": "user"}}]


class Index(Memory):
    """A memory that is asked with the last message."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    async def update_context(self, model_context):
        last = (await model_context.get_messages())[-1]
        return UpdateContextResult(memories=await self.query(last.content))

    async def query(self, query, cancellation_token=None, **kwargs):
        if self.broken:
            raise ConnectionError("no index")
        return MemoryQueryResult(results=[MemoryContent(content=f"about {query}", mime_type="text/plain")])

    async def add(self, content, cancellation_token=None):
        pass

    async def clear(self):
        pass

    close = clear


async def test_a_memory_that_is_asked_is_one_span_with_its_query(adapter, rollout, assistant):
    with rollout() as recorded:
        await adapter.run(assistant("solver", memory=[Index()]), "cats")
    found = recorded.only("retrieval", "Index").attributes
    assert found[semconv.RETRIEVAL_QUERY] == "cats"
    assert found[semconv.RETRIEVAL_DOCUMENTS] == [{"content": "about cats", "metadata": None}]


async def test_a_memory_that_fails(adapter, rollout, assistant):
    with rollout() as recorded, pytest.raises(ConnectionError):
        await adapter.run(assistant("solver", memory=[Index(broken=True)]), "cats")
    assert recorded.outline() == ["agent solver [solver] !agent_error", "  retrieval Index [solver] !retrieval_error"]
