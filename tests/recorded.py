"""One rollout as a test records it, and the tree of its spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agentlightning import semconv
from agentlightning.adapter import Adapter
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span


class Recorded:
    """The spans of one rollout: those that ended so far, by index once it is over."""

    def __init__(self, rollout_id: str = "r", resources: Sequence[AnyResource] = ()) -> None:
        self.spans: list[Span] = []
        self.recorder = Recorder(rollout_id, 1, self.spans.extend, resources)

    def close(self) -> None:
        """The rollout is over."""
        self.recorder.close()
        self.spans.sort(key=lambda span: span.index)

    def all(self, kind: str, name: str | None = None) -> list[Span]:
        """Every span of that kind (and name)."""
        return [span for span in self.spans if span.kind == kind and name in (None, span.name)]

    def only(self, kind: str, name: str | None = None) -> Span:
        """The one span of that kind (and name)."""
        (span,) = self.all(kind, name)
        return span

    def above(self, span: Span) -> list[Span]:
        """What a span is in, the nearest first."""
        found = next((other for other in self.spans if other.id == span.parent_id), None)
        return [found, *self.above(found)] if found is not None else []

    def agents(self) -> list[str | None]:
        """The agent of each model call, in order."""
        return [span.agent for span in self.all("llm")]

    def outline(self) -> list[str]:
        """A line for each span: two spaces a level, structure or kind, name, the agent in brackets, its failure."""
        lines = []
        for span in self.spans:
            kind = span.attributes.get(semconv.STRUCTURE, span.kind)
            failed = f" !{span.failure.type}" if span.failure else ""
            lines.append(f"{'  ' * len(self.above(span))}{kind} {span.name} [{span.agent}]{failed}")
        return lines


@contextmanager
def record(rollout_id: str = "r", resources: Sequence[AnyResource] = ()) -> Iterator[Recorded]:
    """Records the block as one rollout."""
    recorded = Recorded(rollout_id, resources)
    try:
        with recording(recorded.recorder):
            yield recorded
    finally:
        recorded.close()


@contextmanager
def installed(*adapters: Adapter) -> Iterator[None]:
    """Installs adapters around the block."""
    for adapter in adapters:
        adapter.install()
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.uninstall()
