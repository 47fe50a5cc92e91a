"""What the conformance suite runs agents in, and reads what was recorded with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from adapters.framework import Framework
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.adapter import Adapter
from agentlightning.plugins import plugins
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Policy, Span


class Recorded:
    """The spans of one rollout, by index."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = sorted(spans, key=lambda span: span.index)
        self._by_id = {span.id: span for span in spans}

    def kind(self, kind: str) -> list[Span]:
        """All of one kind."""
        return [span for span in self.spans if span.kind == kind]

    def above(self, span: Span) -> list[Span]:
        """What a span is in, the nearest first."""
        above = self._by_id.get(span.parent_id or "")
        return [above, *self.above(above)] if above is not None else []

    def agents(self) -> list[str | None]:
        """The agent of each model call, in order."""
        return [span.agent for span in self.kind("llm")]

    def outline(self) -> str:
        """The tree, for a failed test's message."""
        lines = []
        for span in self.spans:
            kind = span.attributes.get(semconv.STRUCTURE, span.kind)
            failed = f" !{span.failure.type}" if span.failure else ""
            lines.append(f"{'  ' * len(self.above(span))}{kind} {span.name} [{span.agent}]{failed}")
        return "\n".join(lines)


class House:
    """A framework with its adapter and the model layer installed, and two endpoints: the agents' own, and the one
    where a policy is served."""

    def __init__(self, framework: Framework, own: StubServer, served: StubServer) -> None:
        self.framework = framework
        self.own = own
        self.served = served
        self.adapters = {adapter.name: adapter for adapter in plugins().adapters()}
        self.adapter: Adapter = self.adapters[framework.adapter]

    def policy(self, *agents: str) -> Policy:
        """A policy for those agents; for all without."""
        return Policy(name="policy", version=1, agents=agents or ("*",), model="policy", base_url=self.served.base_url)

    def runs(self, agent: Any) -> Adapter:
        """The adapter that runs an agent: the framework's own, or that of plain functions."""
        return next(adapter for adapter in self.adapters.values() if adapter.accepts(agent))

    async def run(
        self, agent: Any, question: str, resources: Sequence[AnyResource], *, id: str = "r", timeout: float = 100
    ) -> tuple[Any, Recorded]:
        """The output (or the exception) of one rollout, and what was recorded."""
        spans: list[Span] = []
        recorder = Recorder(id, 1, spans.extend, resources)
        output: Any
        with recording(recorder):
            try:
                async with asyncio.timeout(timeout):
                    output = await self.runs(agent).run(agent, question)
            except Exception as error:  # noqa: BLE001 - what an agent raises is its output here
                output = error
        recorder.close()
        return output, Recorded(spans)
