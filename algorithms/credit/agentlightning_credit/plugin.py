"""Registers the credits."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_credit(register: Register) -> None:
    register("discounted", "agentlightning_credit.discounted:Discounted")
    register("gigpo", "agentlightning_credit.gigpo:GiGPO")
    register("hgpo", "agentlightning_credit.hgpo:HGPO")
    register("gagpo", "agentlightning_credit.gagpo:GAGPO")
    register("mt_grpo", "agentlightning_credit.mt_grpo:MTGRPO")
    register("per_agent", "agentlightning_credit.per_agent:PerAgent")
    register("tree", "agentlightning_credit.tree:Tree")
    register("replay", "agentlightning_credit.replay:Replay")
