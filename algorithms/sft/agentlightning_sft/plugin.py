"""Registers fine-tuning."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_algorithms(register: Register) -> None:
    register("sft", "agentlightning_sft.algorithm:SFT")
