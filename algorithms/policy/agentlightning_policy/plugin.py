"""Registers the backend that trains a model, and what serves a trained one."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_servers(register: Register) -> None:
    register("torch", "agentlightning_policy.serving:TorchServer")


@hookimpl
def register_backends(register: Register) -> None:
    register("torch", "agentlightning_policy.backend:TorchBackend")
