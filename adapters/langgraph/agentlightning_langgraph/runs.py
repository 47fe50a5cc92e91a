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

from agentlightning.recording import Recorder, current, current_span, locate
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


@dataclass(slots=True, weakref_slot=True, eq=False)
class Run:
    """One LangChain run. ``base`` is the span it hangs under; ``path`` names the nodes from the outermost graph
    down to it, as in ``team/writer``. ``is_named_step`` says that its span begins when something begins in it.
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
    span: Span | None = None
    is_named_step: bool = False
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
        base=_innermost(parent) if parent is not None else locate(recorder),
        namespace=metadata.get("langgraph_checkpoint_ns") or (parent.namespace if parent is not None else None),
        agent=None,
        path=parent.path if parent is not None else "",
    )
    if run.is_node:
        node = str(metadata.get("langgraph_node") or name)
        run.path = f"{run.path}/{node}" if run.path else node
    run.agent = metadata.get("lc_agent_name") or run.path or (parent.agent if parent is not None else None)
    recorder.scratch.setdefault("langgraph", {})[run_id] = run
    _runs[run_id] = run
    return run


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
    """The span that a call made right here belongs under: the announced call, else the running retriever,
    node, tool or graph, else a span that was opened by hand inside of it; None outside LangChain."""
    here = _running(recorder)
    for run in _inside.get():
        if run.ended or run.recorder is not recorder or run.span is None:
            continue
        if here is not None and run is not here and here.within(run):
            break
        if run.span.kind != "llm" or run.span.id in recorder.announced:
            return run.span
    return _innermost(here) if here is not None else None


def announced_around(recorder: Recorder) -> Span | None:
    """The announced call that is being made here: a model that asks another one makes the same call."""
    span = locator(recorder) if recorder.announced else None
    return span if span is not None and span.id in recorder.announced else None


def _running(recorder: Recorder) -> Run | None:
    config = _child_config.get()
    run_id = getattr(config.get("callbacks"), "parent_run_id", None) if config else None
    run = _runs.get(run_id) if run_id is not None else None
    return run if run is not None and run.recorder is recorder else None


def _innermost(run: Run) -> Span | None:
    """The run's place, or the span that was opened by hand since it began."""
    span = current_span()
    if span is None or span.ended_at is not None or span.started_at <= run.started_at:
        return run.place
    return span
