"""Registers the runners ``clients`` and ``processes``, and the command ``agl work``."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_runners(register: Register) -> None:
    register("clients", "agentlightning_client.runner:ClientsRunner")
    register("processes", "agentlightning_client.processes:ProcessesRunner")


@hookimpl
def register_commands(register: Register) -> None:
    register("work", "agentlightning_client.commands:work")
