"""One run of an agent: its input checked, its output as plain data."""

from __future__ import annotations

from typing import Any

from agents import Runner

from agentlightning.errors import AdapterError
from agentlightning_openai_agents.plain import plain


async def run(agent: Any, input: Any) -> Any:
    """See `OpenAIAgentsAdapter.run`."""
    _check(agent, input)
    result = await Runner.run(agent, input)
    if result.interruptions:
        asked = [{"tool": each.name, "arguments": each.arguments} for each in result.interruptions]
        return {"interruptions": asked}
    return plain(result.final_output)


def _check(agent: Any, input: Any) -> None:
    if isinstance(input, str) or (input and isinstance(input, list) and all(isinstance(item, dict) for item in input)):
        return
    raise AdapterError(
        f"the agent {agent.name!r} takes a text or a list of messages, and the task's input is "
        f"{'an empty list' if input == [] else f'a {type(input).__name__}'}: give each task a text, or name a function "
        "instead of the agent, which takes the input and calls Runner.run"
    )
