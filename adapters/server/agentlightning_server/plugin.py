"""Registers the stores ``http://…`` and ``https://…``, and the commands ``agl server`` and ``agl server-key``."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_stores(register: Register) -> None:
    register("http", "agentlightning_server.remote:open_remote")
    register("https", "agentlightning_server.remote:open_remote")


@hookimpl
def register_commands(register: Register) -> None:
    register("server", "agentlightning_server.commands:server")
    register("server-key", "agentlightning_server.commands:server_key")
