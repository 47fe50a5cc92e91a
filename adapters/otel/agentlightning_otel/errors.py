"""What can be wrong with OTLP, in and out."""

from __future__ import annotations

from agentlightning.errors import AgentLightningError


class OtlpError(AgentLightningError):
    """The port cannot be had, or an endpoint does not take what is sent."""


class PayloadError(OtlpError):
    """A body that is not what it should be; ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
