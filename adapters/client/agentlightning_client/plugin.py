"""Registers the runner ``clients`` and the command ``agl work``."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_runners(register: Register) -> None:
    register("clients", "agentlightning_client.runner:ClientsRunner")


@hookimpl
def register_commands(register: Register) -> None:
    register("work", "agentlightning_client.commands:work")
