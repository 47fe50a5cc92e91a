"""Names this distribution's adapter; imports no framework."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_adapters(register: Register) -> None:
    register("openai-agents", "agentlightning_openai_agents.adapter:OpenAIAgentsAdapter")
