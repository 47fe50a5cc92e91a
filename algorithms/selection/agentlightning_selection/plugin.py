"""Names this distribution's algorithm, its router and its server; imports nothing of them."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_algorithms(register: Register) -> None:
    register("selection", "agentlightning_selection.algorithm:Selection")


@hookimpl
def register_routers(register: Register) -> None:
    register("contextual", "agentlightning_selection.router:ContextualRouter")


@hookimpl
def register_servers(register: Register) -> None:
    register("forwarding", "agentlightning_selection.serving:ForwardingServer")
