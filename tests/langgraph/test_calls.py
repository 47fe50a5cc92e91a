"""Model calls: one span each, whoever sees them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from agentlightning import semconv
from agentlightning.recording import current, locate
from agentlightning.records import Generation


def record_call(text: str) -> None:
    """What the model layer does when it sees a call of the ``openai`` client."""
    recorder = current()
    span = recorder.start_call("chat stub", parent=locate(recorder), attributes={semconv.REQUEST_MODEL: "stub"})
    span.generation = Generation(messages=[{"role": "user", "content": text}], provenance="exact")
    recorder.end(span)


class SeenModel(BaseChatModel):
    """A chat model whose calls the model layer sees."""

    calls: int = 1
    inner: Any = None

    @property
    def _llm_type(self) -> str:
        return "seen"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        for _ in range(self.calls):
            record_call(str(messages[-1].content))
        answer = self.inner.invoke(messages) if self.inner else AIMessage("ok")
        return ChatResult(generations=[ChatGeneration(message=answer)])


def node_of(work: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    return graph.compile()


def test_a_call_nobody_else_sees_is_recorded_as_text(rollout):
    model = FakeListChatModel(responses=["Hi."])
    with rollout() as recorded:
        model.invoke([("system", "Be brief."), ("user", "Hello?")])
    said = recorded.only("llm").generation
    assert said.provenance == "text"
    assert said.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    assert said.response == {"role": "assistant", "content": "Hi."}
    assert said.prompt_ids is None
    assert said.response_ids is None


def test_tools_parameters_and_usage_are_recorded_as_text(rollout, scripted, add):
    answer = AIMessage(
        "5",
        usage_metadata={"input_tokens": 7, "output_tokens": 1, "total_tokens": 8},
        response_metadata={"model_name": "script-1", "finish_reason": "stop"},
    )
    schema = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}
    with rollout() as recorded:
        scripted([answer]).bind(tools=[schema]).invoke("2 + 3?")
    call = recorded.only("llm")
    assert call.generation.tools == [schema]
    assert (call.generation.usage.input_tokens, call.generation.usage.output_tokens) == (7, 1)
    assert (call.generation.model, call.generation.finish_reason) == ("script-1", "stop")
    assert call.attributes[semconv.OPERATION_NAME] == "chat"
    assert call.attributes[semconv.RESPONSE_FINISH_REASONS] == ["stop"]


def test_a_text_completion_is_recorded_as_one_message(rollout):
    with rollout() as recorded:
        FakeListLLM(responses=["world"]).invoke("Hello")
    call = recorded.only("llm")
    assert call.name == "text_completion"
    assert call.generation.messages == [{"role": "user", "content": "Hello"}]
    assert call.generation.response == {"role": "assistant", "content": "world"}


def test_a_call_that_the_model_layer_sees_is_one_span(rollout, ask):
    graph = node_of(lambda state: {"messages": [SeenModel().invoke(state["messages"])]})
    with rollout() as recorded:
        graph.invoke(ask)
    assert recorded.outline() == [
        "graph LangGraph [LangGraph]",
        "  node work [work]",
        "    llm chat stub [work]",
    ]
    call = recorded.only("llm")
    assert call.generation.provenance == "exact"
    assert call.attributes[semconv.REQUEST_MODEL] == "stub"
    assert call.attributes[semconv.PROVIDER_NAME] == "seenmodel"


def test_a_call_without_a_graph_is_one_span(rollout):
    with rollout() as recorded:
        SeenModel().invoke("Hello?")
    assert recorded.outline() == ["llm chat stub [None]"]


def test_a_model_that_asks_its_endpoint_twice_makes_two_spans(rollout, ask):
    graph = node_of(lambda state: {"messages": [SeenModel(calls=2).invoke(state["messages"])]})
    with rollout() as recorded:
        graph.invoke(ask)
    assert recorded.outline()[2:] == ["    llm chat stub [work]"] * 2


def test_a_model_that_wraps_another_makes_no_span_of_its_own(rollout, ask):
    wrapper = SeenModel(calls=0, inner=FakeListChatModel(responses=["inner"]))
    with rollout() as recorded:
        node_of(lambda state: {"messages": [wrapper.invoke(state["messages"])]}).invoke(ask)
    assert recorded.only("llm").generation.response["content"] == "inner"


def test_a_model_that_wraps_a_seen_one_makes_no_span_of_its_own(rollout, ask):
    wrapper = SeenModel(calls=0, inner=SeenModel())
    with rollout() as recorded:
        node_of(lambda state: {"messages": [wrapper.invoke(state["messages"])]}).invoke(ask)
    assert recorded.only("llm").generation.provenance == "exact"


def test_a_call_outside_langchain_in_a_node_hangs_under_the_node(rollout, ask):
    def work(state: MessagesState) -> dict[str, Any]:
        FakeListChatModel(responses=["!"]).invoke("first")
        record_call("raw")
        return {}

    with rollout() as recorded:
        node_of(work).invoke(ask)
    assert recorded.outline()[1:] == ["  node work [work]", "    llm chat [work]", "    llm chat stub [work]"]
    assert recorded.only("llm", "chat stub").generation.messages[0]["content"] == "raw"


class Searching(BaseRetriever):
    """A retriever that makes a call of its own."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        record_call(query)
        return []


def test_a_call_in_a_retriever_hangs_under_it_and_one_after_it_does_not(rollout, ask):
    def work(state: MessagesState) -> dict[str, Any]:
        Searching().invoke("inside")
        record_call("after")
        return {}

    with rollout() as recorded:
        node_of(work).invoke(ask)
    assert recorded.outline()[1:] == [
        "  node work [work]",
        "    retrieval Searching [work]",
        "      llm chat stub [work]",
        "    llm chat stub [work]",
    ]


def test_a_call_in_a_retriever_of_another_rollout_is_not_hung_under_it(rollout):
    inner: list[Any] = []

    class Nested(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            with rollout("inner") as recorded:
                record_call(query)
            inner.append(recorded)
            return []

    with rollout("outer") as outer:
        Nested().invoke("books")
    assert outer.outline() == ["retrieval Nested [None]"]
    assert inner[0].outline() == ["llm chat stub [None]"]


def test_a_call_in_a_chain_that_a_retriever_runs_hangs_under_that_chain(rollout):
    class Rewriting(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            rewrite = RunnableLambda(record_call).with_config(run_name="rewrite")
            rewrite.invoke(query, {"callbacks": run_manager.get_child()})
            return []

    with rollout() as recorded:
        Rewriting().invoke("books")
    assert recorded.outline() == [
        "retrieval Rewriting [None]",
        "  chain rewrite [rewrite]",
        "    llm chat stub [rewrite]",
    ]


async def test_parallel_calls_in_one_node_are_told_apart(rollout, ask):
    async def work(state: MessagesState) -> dict[str, Any]:
        seen = (SeenModel().ainvoke(f"seen {n}") for n in range(5))
        unseen = (FakeListChatModel(responses=[f"answer {n}"]).ainvoke(f"unseen {n}") for n in range(5))
        await asyncio.gather(*seen, *unseen)
        return {}

    with rollout() as recorded:
        await node_of(work).ainvoke(ask)
    calls = [(span.generation.provenance, span.generation.messages[0]["content"]) for span in recorded.all("llm")]
    assert sorted(calls) == [
        *(("exact", f"seen {n}") for n in range(5)),
        *(("text", f"unseen {n}") for n in range(5)),
    ]


def test_a_batch_of_seen_prompts_is_a_span_each(rollout):
    with rollout() as recorded:
        SeenModel().generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert [span.generation.messages[0]["content"] for span in recorded.all("llm")] == ["a", "b"]


@pytest.mark.parametrize("times", [1, 3])
def test_spans_are_numbered_in_the_order_in_which_they_begin(rollout, ask, times):
    with rollout() as recorded:
        for _ in range(times):
            node_of(lambda state: {"messages": [SeenModel().invoke(state["messages"])]}).invoke(ask)
    assert [span.index for span in recorded.spans] == list(range(3 * times))
    starts = [span.started_at for span in recorded.spans]
    assert starts == sorted(starts)
