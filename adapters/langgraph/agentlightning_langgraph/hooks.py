"""LangChain's callbacks → spans.

What becomes a span, and what does not:

graph, agent   a run with nodes under it; ``agent`` where `create_agent` made it
node           a run with a checkpoint namespace of its own (a functional task, too)
chain          any other run with a name of its own; a step of a sequence, when something begins in it
tool           a tool run; also a call of a tool that does not exist
retrieval      a retriever run
llm            a model run, which the model layer is told to expect; written here only when that saw no call

No span: hidden runs (``langsmith:hidden``), functions that are steps of a sequence or decide on a branch (``seq:step``,
``map:key``, ``branch``, ``condition``), prompts, output parsers, and Runnables that bear the name of their class.
What happens in them hangs under the nearest span above.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from agentlightning import semconv
from agentlightning.adapterkit.attributes import tool_attributes
from agentlightning.adapterkit.failures import failure_of_call
from agentlightning.recording import Recorder, current, failure_of, guarded
from agentlightning.records import Failure, Span, SpanKind
from agentlightning.threads import was_left
from agentlightning_langgraph import answer_cache
from agentlightning_langgraph.calls import Request, call_attributes, to_generation
from agentlightning_langgraph.serialize import plain
from agentlightning_langgraph.span_stack import RunFrame, begin_run, find_run, push_call, stack

HIDDEN_TAG = "langsmith:hidden"
STEP_TAGS = ("seq:step:", "map:key:")
EDGE_TAGS = ("branch:", "condition:")
BODY_TAG = "seq:step:1"
"""What a node's function itself invokes bears this tag; the edges that follow it have higher numbers."""
CLASS_NAMES = ("Runnable", "Channel", "_")
STEP_TYPES = ("prompt", "parser")


class RecordingHandler(BaseCallbackHandler):
    """Writes the runs of the current rollout as spans."""

    run_inline = True
    installed = False

    @guarded
    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        run_type: str | None = None,
        **about: Any,
    ) -> None:
        run = _begin(run_id, serialized, **about)
        if run is None or HIDDEN_TAG in (tags or ()):
            return
        if run.parent is not None and run.is_node:
            _recognise_graph(run.parent)
            run.base = run.base if run.base is not run.parent.base else run.parent.inner
            run.name = str(run.metadata.get("langgraph_node") or run.name)
            run.start_agent("node")
        elif _has_a_name(run, run_type):
            if _is_step(run, tags or ()):
                run.is_named_step = not _decides(run, tags or ())
            else:
                run.start_agent("chain")

    @guarded
    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is None:
            return
        if run.is_node and run.span is not None:
            _record_unknown_tools(run, outputs)
        _end(run)

    @guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is not None:
            _end(run, _failure(run, error, "agent_error"), left=was_left(error))

    @guarded
    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        tool_call_id: str | None = None,
        **about: Any,
    ) -> None:
        run = _begin(run_id, serialized, **about)
        if run is None:
            return
        attributes = tool_attributes(run.name, tool_call_id, plain(inputs if inputs is not None else input_str))
        if serialized and serialized.get("description"):
            attributes[semconv.TOOL_DESCRIPTION] = serialized["description"]
        if run.node is not None:
            run.node.tools_called.add(tool_call_id or run.name)
        run.span = _interrupted_tools(run.recorder).pop(tool_call_id, None) or _start(run, "tool", attributes)

    @guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is None or run.span is None:
            return
        failure = None
        if isinstance(output, ToolMessage):
            run.span.attributes.setdefault(semconv.TOOL_CALL_ID, output.tool_call_id)
            if output.status == "error":
                failure = Failure(type="tool_error", message=str(output.content))
            output = output.content
        run.span.attributes[semconv.TOOL_CALL_RESULT] = plain(output)
        _end(run, failure)

    @guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is None or run.span is None:
            return
        failure, span, recorder = _failure(run, error, "tool_error"), run.span, run.recorder
        if semconv.INTERRUPTED in span.attributes and failure is None:
            # Its call is still to be answered: it begins again when the graph goes on.
            _interrupted_tools(recorder)[span.attributes.get(semconv.TOOL_CALL_ID)] = span
            recorder.on_close(span, lambda _: recorder.end(span))
        else:
            _end(run, failure)

    @guarded
    def on_retriever_start(self, serialized: dict[str, Any] | None, query: str, *, run_id: UUID, **about: Any) -> None:
        run = _begin(run_id, serialized, **about)
        if run is not None:
            _start(run, "retrieval", {semconv.RETRIEVAL_QUERY: query})
            stack.push(run)

    @guarded
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is not None and run.span is not None:
            run.span.attributes[semconv.RETRIEVAL_DOCUMENTS] = plain(list(documents))
            _end(run)

    @guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is not None:
            _end(run, _failure(run, error, "retrieval_error"))

    @guarded
    def on_chat_model_start(
        self, serialized: dict[str, Any] | None, messages: list[list[BaseMessage]], *, run_id: UUID, **about: Any
    ) -> None:
        _expect_call(_begin(run_id, serialized, **about), messages[0], **about)

    @guarded
    def on_llm_start(
        self, serialized: dict[str, Any] | None, prompts: list[str], *, run_id: UUID, **about: Any
    ) -> None:
        _expect_call(_begin(run_id, serialized, **about), prompts[0], **about)

    @guarded
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        run = find_run(run_id)
        if run is not None:
            _end_call(run, response)

    @guarded
    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        run = find_run(run_id)
        if run is not None:
            _end_call(run, response, error)


handler = RecordingHandler()
"""The one that is registered with LangChain."""


class _HandlerOfRollouts:
    """Stands in for the context variable that LangChain's configure hook asks for a handler, before it begins anything:
    there is one in a rollout, and elsewhere none, so that nothing is dispatched there."""

    def get(self) -> RecordingHandler | None:
        if not handler.installed or current() is None:
            return None
        answer_cache.install()
        return handler


_registered = False


def install() -> None:
    """Registers the handler, once per process, and has the stack asked where a call belongs."""
    global _registered
    if not _registered:
        register_configure_hook(cast("ContextVar[Any]", _HandlerOfRollouts()), inheritable=True)
        _registered = True
    handler.installed = True
    stack.install()


def uninstall() -> None:
    """Switches the handler off, which LangChain cannot unregister, and takes everything else out."""
    handler.installed = False
    answer_cache.uninstall()
    stack.uninstall()


def _begin(
    run_id: UUID,
    serialized: dict[str, Any] | None,
    *,
    parent_run_id: UUID | None = None,
    metadata: dict[str, Any] | None = None,
    name: str | None = None,
    **_: Any,
) -> RunFrame | None:
    """A run that begins in a rollout, while the handler is installed."""
    if not handler.installed:
        return None
    if not name:
        serialized = serialized or {}
        name = str(serialized.get("name") or (serialized.get("id") or ["unnamed"])[-1])
    above = find_run(parent_run_id)
    if above is not None and above.is_named_step and above.span is None:
        above.start_agent("chain")
    return begin_run(run_id, above, name, metadata or {})


def _has_a_name(run: RunFrame, run_type: str | None) -> bool:
    """Whether a run goes by a name that somebody gave it, or a function."""
    return run_type not in STEP_TYPES and not run.name.startswith(CLASS_NAMES)


def _is_step(run: RunFrame, tags: Sequence[str]) -> bool:
    """Whether a run is a part of something larger."""
    return any(tag.startswith(STEP_TAGS + EDGE_TAGS) for tag in tags)


def _decides(run: RunFrame, tags: Sequence[str]) -> bool:
    """Whether a step only says where to go on: the condition of a branch, and what comes after a node's function."""
    is_in_node = run.parent is not None and run.parent.is_node
    return (is_in_node and BODY_TAG not in tags) or any(tag.startswith(EDGE_TAGS) for tag in tags)


def _start(run: RunFrame, kind: SpanKind, attributes: dict[str, Any]) -> Span:
    span = run.recorder.start(kind, run.name, parent=run.base, agent=run.agent, attributes=attributes)
    run.span = span
    return span


def _recognise_graph(run: RunFrame) -> None:
    """A run is known to be a graph when a node of it begins, and to be a named agent by the node's name: nothing in its
    own start says so."""
    if run.is_node:
        return
    if run.span is None:
        run.start_agent("chain")
    span = run.span
    if span is not None and span.attributes.get(semconv.STRUCTURE) in ("chain", "graph"):
        span.attributes[semconv.STRUCTURE] = "agent" if _is_agent(run) else "graph"
        span.agent = run.agent


def _is_agent(run: RunFrame) -> bool:
    """Whether the graph is an agent's loop with a name, or one that `create_agent` made: what runs in that inherits its
    metadata."""
    inherited = run.parent.metadata.get("ls_integration") if run.parent is not None else None
    return run.is_loop or run.metadata.get("ls_integration") == "langchain_create_agent" != inherited


def _end(run: RunFrame, failure: Failure | None = None, *, left: bool = False) -> None:
    run.ended = True
    if run.span is not None:
        run.recorder.end(run.span, failure, left=left)


def _interrupted_tools(recorder: Recorder) -> dict[str | None, Span]:
    """By the id of their calls."""
    spans: dict[str | None, Span] = recorder.adapter_state.setdefault("langgraph interrupted", {})
    return spans


def _failure(run: RunFrame, error: BaseException, type: str) -> Failure | None:
    """What kind of failure an exception is; None where it is how LangGraph hands control on."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in error.__class__.__mro__}
    if "langgraph.errors.GraphInterrupt" in names and run.span is not None:
        run.span.attributes[semconv.INTERRUPTED] = True
    if "langgraph.errors.GraphBubbleUp" in names or was_left(error):
        return None
    if "langgraph.errors.GraphRecursionError" in names:
        return failure_of(error, "recursion_limit")
    return failure_of(error, type)


def _record_unknown_tools(run: RunFrame, outputs: Any) -> None:
    """A call of a tool that does not exist starts no tool run: the tool node answers it by itself."""
    messages = outputs.get("messages") if isinstance(outputs, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, ToolMessage) for message in messages):
        return
    for message in messages:
        known = message.tool_call_id in run.tools_called or message.name in run.tools_called
        if message.status == "error" and message.name and not known:
            attributes = tool_attributes(message.name, message.tool_call_id)
            attributes[semconv.TOOL_CALL_RESULT] = message.content
            span = run.recorder.start("tool", message.name, parent=run.inner, attributes=attributes)
            run.recorder.end(span, Failure(type="tool_error", message=str(message.content)))


def _expect_call(
    run: RunFrame | None,
    prompt: Sequence[BaseMessage] | str,
    *,
    invocation_params: dict[str, Any] | None = None,
    batch_size: int = 1,
    **_: Any,
) -> None:
    """Starts the span of a model call that is about to be made, for the model layer to take where it sees the call."""
    if run is None:
        return
    run.request = Request(prompt=prompt, parameters=invocation_params or {}, metadata=run.metadata)
    around = stack.locate(run.recorder)
    sibling = push_call(run, batch_size)
    if sibling is not None:
        run.base = sibling.base
    elif run.recorder.expects_call(around):  # a model that asks another one makes the same call
        run.base = around
    run.name, attributes = call_attributes(run.request)
    run.span = run.recorder.start_call(run.name, parent=run.base, agent=run.agent, attributes=attributes)
    run.recorder.expect_call(run.span)


def _end_call(run: RunFrame, response: LLMResult | None, error: BaseException | None = None) -> None:
    """Writes a model call that nobody has taken."""
    run.ended = True
    if run.request is None or run.recorder.take_expected_call(run.span) is None or run.span is None:
        return
    failure = failure_of_call(error) if error is not None and not was_left(error) else None
    if error is not None and not _says_something(response):
        response = None
    run.span.generation = to_generation(run.request, response, run.span.attributes)
    run.recorder.end(run.span, failure)


def _says_something(response: LLMResult | None) -> bool:
    """LangChain makes an empty message of an endpoint's error: that is no answer. A stream's beginning is one."""
    return any(answer.text for answers in (response.generations if response else ()) for answer in answers)
