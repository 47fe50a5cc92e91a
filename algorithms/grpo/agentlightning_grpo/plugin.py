"""Registers GRPO."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_algorithms(register: Register) -> None:
    register("grpo", "agentlightning_grpo.algorithm:GRPO")
