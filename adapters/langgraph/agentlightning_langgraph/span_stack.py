"""Which span a LangChain run belongs to.

LangChain calls everything a run: graphs, nodes, models, tools, and a good deal of plumbing. A `RunFrame` is kept for
each of them as long as its recorder lives, so that a child whose parent makes no span of its own finds the nearest span
above, also from a thread that has lost the context. LangChain's own context says which run runs here, but for those of
models and retrievers, which are pushed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from agentlightning.adapterkit.attributes import agent_attributes
from agentlightning.adapterkit.span_stack import Frame, SpanStack
from agentlightning.recording import Recorder, current, innermost, locate
from agentlightning.records import Span
from agentlightning_langgraph.calls import Request
from agentlightning_langgraph.internals import running_id

UNNAMED = "LangGraph"
"""What a graph is called that nobody gave a name to."""

MODEL_NODES = {
    *("agent", "pre_model_hook", "post_model_hook", "generate_structured_response"),
    *("model", "call_model", "llm", "llm_call"),
}
TOOL_NODES = {"tools", "tool_node"}
"""The nodes of an agent's loop, as ``create_react_agent`` and LangGraph's guides call them: none says who acts."""


@dataclass(slots=True, eq=False, kw_only=True)
class RunFrame(Frame):
    """One LangChain run. ``path`` names the nodes from the outermost graph down to it, as in ``team/writer``.

    ``is_named`` says that it is a part of an agent that was given a name, ``is_named_step`` that its span begins when
    something begins in it, ``is_workflow`` that it is a graph of nodes with names of their own. ``tools_called`` are
    the calls (by id, else by the tool's name) made in a node, ``request`` is what a model was asked, ``batch`` are the
    model calls of which this is one and that begin together.
    """

    parent: RunFrame | None
    name: str
    metadata: dict[str, Any]
    namespace: str | None
    agent: str | None
    path: str
    is_named: bool
    is_named_step: bool = False
    is_workflow: bool = False
    started_at: float = field(default_factory=time.time)
    tools_called: set[str] = field(default_factory=set)
    request: Request | None = None
    batch: list[RunFrame] = field(default_factory=list)

    @property
    def inner(self) -> Span | None:
        """The span that what happens in it hangs under; of the calls of a batch, the first that is still expected."""
        expected = (call.span for call in self.batch if self.recorder.expects_call(call.span))
        return next(expected, self.base if self.batch or self.span is None else self.span)

    @property
    def is_node(self) -> bool:
        """Whether this is the run of a node (or of a functional task): it has a checkpoint namespace of its own."""
        return self.parent is not None and self.namespace != self.parent.namespace

    @property
    def node(self) -> RunFrame | None:
        """The run of the node that this one is in."""
        run: RunFrame | None = self
        while run is not None and not run.is_node:
            run = run.parent
        return run

    @property
    def is_loop(self) -> bool:
        """Whether this is a graph that is an agent of the graph's name."""
        return self.is_named and self.agent == self.name

    @property
    def agent_name(self) -> str | None:
        """The name given to ``create_agent``, where this is the run of its graph; what runs in it has it as well."""
        name = self.metadata.get("lc_agent_name")
        return name if self.parent is None or name != self.parent.metadata.get("lc_agent_name") else None

    def start_agent(self, structure: str) -> None:
        """Begins the run's own span."""
        self.agent = self.agent if self.agent and (self.path or self.is_named) else self.name
        self.span = self.recorder.start(
            "agent", self.name, parent=self.base, agent=self.agent, attributes=agent_attributes(structure)
        )
        self.span.started_at = self.started_at


_runs: WeakValueDictionary[UUID, RunFrame] = WeakValueDictionary()


def begin_run(run_id: UUID, parent: RunFrame | None, name: str, metadata: dict[str, Any]) -> RunFrame | None:
    """Keeps a run that begins; None outside a rollout."""
    recorder = current()
    if recorder is None and parent is not None:
        recorder = parent.recorder
    if recorder is None or recorder.closed:
        return None
    if parent is None or parent.recorder is not recorder:
        parent = _running(recorder)
    run = RunFrame(
        recorder=recorder,
        parent=parent,
        name=name,
        metadata=metadata,
        base=innermost(parent.inner) if parent is not None else locate(recorder),
        namespace=metadata.get("langgraph_checkpoint_ns") or (parent.namespace if parent is not None else None),
        agent=parent.agent if parent is not None else None,
        path=parent.path if parent is not None else "",
        is_named=parent.is_named if parent is not None else False,
    )
    if run.agent_name is not None:
        run.agent, run.is_named = run.agent_name, True
    elif run.is_node and parent is not None:
        _name_node(run, parent, str(metadata.get("langgraph_node") or name))
    recorder.adapter_state.setdefault("langgraph", {})[run_id] = run
    _runs[run_id] = run
    return run


def _name_node(run: RunFrame, graph: RunFrame, node: str) -> None:
    """Says whose a node is: the agent's whose loop it is a part of, or its own."""
    has_name = graph.name != UNNAMED and not graph.is_node
    if graph.agent_name is not None:
        run.path = graph.agent_name
        return
    if has_name and node in MODEL_NODES:
        graph.agent, graph.is_named = graph.name, True
    if has_name and (node in MODEL_NODES or (node in TOOL_NODES and (graph.is_loop or not graph.is_workflow))):
        run.agent, run.is_named, run.path = graph.name, True, graph.name
    elif has_name or not graph.is_named:
        around, _, last = graph.path.rpartition("/")
        last = graph.name if last and has_name and graph.name != node else last
        graph.is_workflow = True
        run.path = "/".join(filter(None, (around, last, node)))
        run.agent, run.is_named = run.path, False


def find_run(run_id: UUID | None) -> RunFrame | None:
    """The run of that id; None when it began outside a rollout."""
    return _runs.get(run_id) if run_id is not None else None


def push_call(run: RunFrame, batch_size: int) -> RunFrame | None:
    """Notes that what happens here next happens in the run of a model, one of a ``batch_size`` that begin together.
    Returns one of them that began before, if any."""
    before = stack.innermost(run.recorder)
    together = before is not None and 0 < len(before.batch) < batch_size and before.parent is run.parent
    run.batch = before.batch if before is not None and together else []
    run.batch.append(run)
    stack.push(run)
    return before if together else None


def _running(recorder: Recorder) -> RunFrame | None:
    run = find_run(running_id())
    return run if run is not None and run.recorder is recorder else None


stack: SpanStack[RunFrame] = SpanStack("langgraph", find=_running)
