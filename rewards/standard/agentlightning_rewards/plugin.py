"""Names this distribution's rewards; imports none of them."""

from __future__ import annotations

from agentlightning.hookspecs import Register, hookimpl


@hookimpl
def register_rewards(register: Register) -> None:
    register("exact_match", "agentlightning_rewards.exact:ExactMatch")
    register("numeric_match", "agentlightning_rewards.numeric:NumericMatch")
    register("regex", "agentlightning_rewards.regex:Regex")
    register("json_schema", "agentlightning_rewards.schema:JsonSchema")
