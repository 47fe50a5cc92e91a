"""Names this distribution's reward and its command; imports neither."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_rewards(register: Register) -> None:
    register("intermediate", "agentlightning_intermediate.reward:Intermediate")


@hookimpl
def register_commands(register: Register) -> None:
    register("suggest-rewards", "agentlightning_intermediate.command:suggest_rewards")
