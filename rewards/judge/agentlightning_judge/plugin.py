"""Names this distribution's rewards and its command; imports none of them."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_rewards(register: Register) -> None:
    register("judge", "agentlightning_judge.reward:Judge")
    register("feedback", "agentlightning_judge.feedback:UserFeedback")


@hookimpl
def register_commands(register: Register) -> None:
    register("judge-agreement", "agentlightning_judge.command:judge_agreement")
