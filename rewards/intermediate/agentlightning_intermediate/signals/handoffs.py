"""Hand-offs that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator

from agentlightning import semconv
from agentlightning.records import Span
from agentlightning_intermediate.signals.signal import Occurrence, SignalOptions
from agentlightning_intermediate.trace import Trace, ended_at


def handoff_circle(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A hand-off comes back to an agent that has handed on before (A → B → A), and since then no tool and no retrieval
    has succeeded."""
    path: list[str] = []
    for span in trace.of_kind("tool", "retrieval", "handoff"):
        if span.kind != "handoff":
            path = [] if span.failure is None else path
            continue
        target = _target(span)
        path.append(span.agent or "")
        answer = trace.cause(span)
        if target in path and answer is not None:
            circle = [*path[path.index(target) :], target]
            yield Occurrence(answer, ended_at(span), f"handed on in a circle: {' → '.join(circle)}")


def _target(span: Span) -> str:
    target = span.attributes.get(semconv.AGENT_NAME)
    return target if isinstance(target, str) else span.name
