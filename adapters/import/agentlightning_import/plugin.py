"""Registers the formats that `agl import` reads."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_importers(register: Register) -> None:
    register("langfuse", "agentlightning_import.langfuse:Langfuse")
    register("langsmith", "agentlightning_import.langsmith:LangSmith")
    register("openai", "agentlightning_import.openai:OpenAI")
