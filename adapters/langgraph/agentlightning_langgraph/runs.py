"""Which span a LangChain run belongs to.

LangChain calls everything a run: graphs, nodes, models, tools, and a good deal of plumbing. A `Run` is kept
for each of them as long as its recorder lives, so that a child whose parent makes no span of its own finds
the nearest span above, also from a thread that has lost the context.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from agentlightning import semconv
from agentlightning.recording import Recorder, current, innermost, locate
from agentlightning.records import Span
from agentlightning_langgraph.calls import Request

logger = logging.getLogger(__name__)

# There is no public way to ask which run is running here. Private in langchain-core, and used by LangGraph;
# checked with langchain-core 1.0.0 and 1.7.2. Without it, calls hang under the span of the context.
try:
    from langchain_core.runnables.config import var_child_runnable_config as _child_config
except ImportError:
    logger.warning("this langchain-core has no var_child_runnable_config: model calls are not placed under their node")
    _child_config = ContextVar("child_runnable_config", default=None)

UNNAMED = "LangGraph"
"""What a graph is called that nobody gave a name to."""

MODEL_NODES = {
    *("agent", "pre_model_hook", "post_model_hook", "generate_structured_response"),
    *("model", "call_model", "llm", "llm_call"),
}
TOOL_NODES = {"tools", "tool_node"}
"""The nodes of an agent's loop, as ``create_react_agent`` and LangGraph's guides call them: none says who acts."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Run:
    """One LangChain run. ``base`` is the span it hangs under; ``path`` names the nodes from the outermost graph
    down to it, as in ``team/writer``. ``is_named`` says that it is a part of an agent that was given a name,
    ``is_named_step`` that its span begins when something begins in it, ``is_workflow`` that it is a graph of nodes with
    names of their own.
    ``tools_called`` are the calls (by id, else by the tool's name) made in a
    node, ``request`` is what a model was asked, ``siblings`` the number of prompts it was asked at once."""

    recorder: Recorder
    parent: Run | None
    name: str
    metadata: dict[str, Any]
    base: Span | None
    namespace: str | None
    agent: str | None
    path: str
    is_named: bool
    span: Span | None = None
    is_named_step: bool = False
    is_workflow: bool = False
    ended: bool = False
    started_at: float = field(default_factory=time.time)
    tools_called: set[str] = field(default_factory=set)
    request: Request | None = None
    siblings: int = 1

    @property
    def place(self) -> Span | None:
        """The span that what happens in this run hangs under: its own, else the nearest above."""
        return self.span if self.span is not None else self.base

    @property
    def is_node(self) -> bool:
        """Whether this is the run of a node (or of a functional task): it has a checkpoint namespace of its own."""
        return self.parent is not None and self.namespace != self.parent.namespace

    @property
    def node(self) -> Run | None:
        """The run of the node that this one is in."""
        run: Run | None = self
        while run is not None and not run.is_node:
            run = run.parent
        return run

    @property
    def is_loop(self) -> bool:
        """Whether this is a graph that is an agent of the graph's name."""
        return self.is_named and self.agent == self.name

    @property
    def given_name(self) -> str | None:
        """The name given to ``create_agent``, where this is the run of its graph; what runs in it has it as well."""
        name = self.metadata.get("lc_agent_name")
        return name if self.parent is None or name != self.parent.metadata.get("lc_agent_name") else None

    def start_agent(self, structure: str) -> None:
        """Begins the run's own span."""
        self.agent = self.agent if self.agent and (self.path or self.is_named) else self.name
        attributes = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}
        self.span = self.recorder.start("agent", self.name, parent=self.base, agent=self.agent, attributes=attributes)
        self.span.started_at = self.started_at

    def within(self, other: Run) -> bool:
        """Whether ``other`` is this run or one above it."""
        run: Run | None = self
        while run is not None and run is not other:
            run = run.parent
        return run is other


_runs: WeakValueDictionary[UUID, Run] = WeakValueDictionary()
_inside: ContextVar[tuple[Run, ...]] = ContextVar("agentlightning_langgraph_inside", default=())
"""The model and retriever runs begun here: LangChain does not put those in its own context."""


def begin(run_id: UUID, parent_run_id: UUID | None, name: str, metadata: dict[str, Any] | None) -> Run | None:
    """Keeps a run that begins; None outside a rollout."""
    parent = _runs.get(parent_run_id) if parent_run_id is not None else None
    recorder = current()
    if recorder is None:
        if parent is None:
            return None
        recorder = parent.recorder
    if recorder.closed:
        return None
    if parent is None or parent.recorder is not recorder:
        parent = _running(recorder)
    metadata = metadata or {}
    run = Run(
        recorder=recorder,
        parent=parent,
        name=name,
        metadata=metadata,
        base=innermost(parent.place) if parent is not None else locate(recorder),
        namespace=metadata.get("langgraph_checkpoint_ns") or (parent.namespace if parent is not None else None),
        agent=parent.agent if parent is not None else None,
        path=parent.path if parent is not None else "",
        is_named=parent.is_named if parent is not None else False,
    )
    if run.given_name is not None:
        run.agent, run.is_named = run.given_name, True
    elif run.is_node and parent is not None:
        _name_node(run, parent, str(metadata.get("langgraph_node") or name))
    recorder.adapter_state.setdefault("langgraph", {})[run_id] = run
    _runs[run_id] = run
    return run


def _name_node(run: Run, graph: Run, node: str) -> None:
    """Says whose a node is: the agent's whose loop it is a part of, or its own."""
    has_name = graph.name != UNNAMED and not graph.is_node
    if graph.given_name is not None:
        run.path = graph.given_name
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


def find(run_id: UUID) -> Run | None:
    """The run of that id; None when it began outside a rollout."""
    return _runs.get(run_id)


def enter(run: Run, siblings: int = 1) -> Run | None:
    """Notes that what happens here next happens in ``run``, or in one of the ``siblings`` that one call of a
    model begins together. Returns the one of them that began before, if any."""
    before = _inside.get()
    run.siblings = siblings
    together = 0 < len(before) < siblings == before[-1].siblings and before[-1].parent is run.parent
    _inside.set((*before, run) if together else (run,))
    return before[-1] if together else None


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: the expected call, else the running retriever, node,
    tool or graph; None outside LangChain."""
    here = _running(recorder)
    for run in _inside.get():
        if run.ended or run.recorder is not recorder or run.span is None:
            continue
        if here is not None and run is not here and here.within(run):
            break
        if run.span.kind != "llm" or recorder.expects_call(run.span):
            return run.span
    return here.place if here is not None else None


def _running(recorder: Recorder) -> Run | None:
    config = _child_config.get()
    run_id = getattr(config.get("callbacks"), "parent_run_id", None) if config else None
    run = _runs.get(run_id) if run_id is not None else None
    return run if run is not None and run.recorder is recorder else None
