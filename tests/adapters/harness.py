"""What the conformance suite runs agents in, and reads what was recorded with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from adapters.framework import Framework
from recorded import Recorded, record
from stub_server import StubServer

from agentlightning.adapter import Adapter
from agentlightning.plugins import plugins
from agentlightning.records import AnyResource, Policy


class Harness:
    """A framework with its adapter and the model layer installed, and two endpoints: the agents' own, and the one
    where a policy is served."""

    def __init__(self, framework: Framework, own: StubServer, served: StubServer) -> None:
        self.framework = framework
        self.own = own
        self.served = served
        self.adapters = {adapter.name: adapter for adapter in plugins().adapters()}
        self.adapter: Adapter = self.adapters[framework.adapter]

    @property
    def sees_tools(self) -> bool:
        """Whether the framework lets tools be seen at all."""
        return "a_tool_with_its_arguments_and_result" not in self.framework.gaps

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
        output: Any
        with record(id, resources) as recorded:
            try:
                async with asyncio.timeout(timeout):
                    output = await self.runs(agent).run(agent, question)
            except Exception as error:  # noqa: BLE001 - what an agent raises is its output here
                output = error
        return output, recorded
