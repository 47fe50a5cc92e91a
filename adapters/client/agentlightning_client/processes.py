"""The runner ``processes``: rollouts on this machine, each in a process that runs nothing else meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentlightning.agent_here import Perform
from agentlightning.errors import ConfigError
from agentlightning.local_runner import LocalRunner
from agentlightning_client.agent_processes import Agent, AgentProcesses


class ProcessesRunner(LocalRunner):
    """What `LocalRunner` does, with the agent in processes of its own: one that hangs, crashes or takes all memory is
    a failed rollout, and no more. ``runner.concurrency`` is how many there are at most.

    Raises `ConfigError` where the agent has no name to be loaded by.
    """

    runs_agent_here = False

    def performing(self) -> Perform:
        agent = self.setup.agent
        if not isinstance(agent, str):
            raise ConfigError(
                "runner.name: processes load the agent by its name: give it as 'module:attribute', not as an object"
            )
        self._processes = AgentProcesses(Agent(name=agent, timeout=self.setup.config.timeout))
        return self._processes.perform

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The agent is loaded in the first process when the block begins, and all processes are ended after it."""
        async with super().running():
            try:
                await self._processes.start()
                yield
            finally:
                self._processes.close()
