"""Names this distribution's algorithms; imports nothing of them."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_algorithms(register: Register) -> None:
    register("few_shot", "agentlightning_prompt.few_shot:FewShot")
    register("gepa", "agentlightning_prompt.gepa:GEPA")
    register("apo", "agentlightning_prompt.apo:APO")
