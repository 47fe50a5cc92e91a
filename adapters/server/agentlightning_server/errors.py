"""What can be wrong with a request."""

from __future__ import annotations

from agentlightning.errors import AgentLightningError


class ServerError(AgentLightningError):
    """The server cannot be started as it was asked to, or a key cannot be made."""


class RequestError(ServerError):
    """A request that is not done; ``status`` is the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
