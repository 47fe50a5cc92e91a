"""What core registers itself, through the same door as every other plugin."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_adapters(register: Register) -> None:
    register("function", "agentlightning.function_adapter:FunctionAdapter")


@hookimpl
def register_algorithms(register: Register) -> None:
    register("eval", "agentlightning.evaluation:Eval")


@hookimpl
def register_runners(register: Register) -> None:
    register("local", "agentlightning.local_runner:LocalRunner")


@hookimpl
def register_credit(register: Register) -> None:
    register("broadcast", "agentlightning.credit:Broadcast")


@hookimpl
def register_stores(register: Register) -> None:
    register("sqlite", "agentlightning.store.sqlite:open_sqlite")
