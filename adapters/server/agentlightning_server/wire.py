"""What the server and its clients agree on beside the methods: headers, sizes, times, and errors."""

from __future__ import annotations

import msgspec

CONTENT_TYPE = "application/msgpack"
KEY_VARIABLE = "AGL_SERVER_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine, for itself."""
SESSION = "agentlightning-session"
CLIENT = "agentlightning-client"
"""``host:pid`` of the process that a session is of."""
REQUEST = "agentlightning-request"
"""The number of a write in its session: what is sent again has the number that it had."""
ANSWERED = "agentlightning-answered"
"""Every request of a lower number has been answered."""
AGAIN = "agentlightning-again"
"""There where a request was sent before, and perhaps done."""

MAX_BODY_BYTES = 64 * 1024**2
CHUNK_BYTES = 4 * 1024**2
"""About what a client sends at once, where it has more."""
PAGE = 500
"""Rollouts that a client asks for at once."""
WAIT_SECONDS = 20.0
"""How long an answer is waited for that comes when something has ended."""


class Problem(msgspec.Struct):
    """The body of an answer that is an error: the name of its type, and what it says."""

    error: str
    message: str


class SessionAnswer(msgspec.Struct):
    """How often a session must be heard from, in seconds."""

    keep_alive_seconds: float
