"""Registers the backend that serves a policy by vLLM."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_backends(register: Register) -> None:
    register("vllm", "agentlightning_vllm.backend:VllmBackend")
