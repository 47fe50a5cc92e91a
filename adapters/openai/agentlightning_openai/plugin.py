"""Registers the adapter ``openai``."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_adapters(register: Register) -> None:
    register("openai", "agentlightning_openai.adapter:OpenAIAdapter")
