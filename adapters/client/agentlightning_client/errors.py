"""The error of this distribution."""

from __future__ import annotations

from agentlightning.errors import AgentLightningError


class ClientError(AgentLightningError):
    """Nobody runs a run's rollouts, or a worker has nothing that it may run."""
