"""An agent that a worker in a process of its own imports."""

from __future__ import annotations

import agentlightning as agl


def echo(number: int) -> int:
    with agl.span("echo"):
        return number
