"""Names this distribution's algorithm; imports nothing of it."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_algorithms(register: Register) -> None:
    register("selection", "agentlightning_selection.algorithm:Selection")
