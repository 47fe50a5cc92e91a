"""Registers the stores ``http://…`` and ``https://…``, training there, and the commands of servers."""

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
    register("training", "agentlightning_server.training.commands:training")
    register("train-submitted", "agentlightning_server.training.child:train_submitted")


@hookimpl
def register_submitters(register: Register) -> None:
    register("http", "agentlightning_server.training.submitting:submit")
    register("https", "agentlightning_server.training.submitting:submit")
