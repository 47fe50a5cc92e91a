"""Registers what serves a trained model."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_servers(register: Register) -> None:
    register("torch", "agentlightning_policy.serving:TorchServer")
