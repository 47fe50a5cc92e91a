"""Which objects of the OpenAI Agents SDK are agents, and how to run one on a task's input."""

from __future__ import annotations

import sys
from typing import Any

from agentlightning.adapter import Adapter
from agentlightning.adapterkit.typechecks import is_a
from agentlightning.errors import AdapterError


class OpenAIAgentsAdapter(Adapter):
    """Runs an ``agents.Agent`` with ``Runner.run``.

    The SDK is touched only when the agent's own code has imported it. Its import name is ``agents``, which a
    package of the user's own may have as well: that one is left alone.
    """

    name = "openai-agents"
    modules = ("agents",)
    hooks = "agentlightning_openai_agents.hooks"
    entry_points = "agentlightning_openai_agents.entry_points:ENTRY_POINTS"
    versions = ("openai-agents", "0.20", "0.25")

    def is_supported(self) -> bool:
        """Whether ``agents`` is the SDK, of a version that is hooked into."""
        return _is_loaded() and super().is_supported()

    def accepts(self, agent: Any) -> bool:
        """True for every ``Agent``."""
        return _is_loaded() and is_a(agent, "agents.agent", "Agent")

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs the agent without a session, and returns its final output as plain data: a string, or a mapping
        where the agent has an ``output_type``.

        The input is a text, or a list of messages or of other items of the responses API. A run that stops for an
        approval has nobody to give it: its output is ``{"interruptions": [{"tool": …, "arguments": …}]}``. Raises
        `AdapterError` where the input is anything else, and for a ``SandboxAgent``, whose sandbox is not the
        agent's own.
        """
        from agents import Runner

        _check_sandbox(agent)
        _check_input(agent, input)
        result = await Runner.run(agent, input)
        if result.interruptions:
            return {
                "interruptions": [{"tool": call.name, "arguments": call.arguments} for call in result.interruptions]
            }
        return to_plain(result.final_output)


def to_plain(value: Any) -> Any:
    """What an agent or a tool returns, with pydantic models and dataclasses as mappings; what has no such form as its
    text."""
    from pydantic_core import to_jsonable_python

    if value is None or isinstance(value, str | int | float | bool):
        return value
    try:
        return to_jsonable_python(value, bytes_mode="base64", fallback=str)
    except Exception:  # noqa: BLE001 - what it returns is the agent's own affair
        return str(value)


def _is_loaded() -> bool:
    return hasattr(sys.modules.get("agents.tracing"), "add_trace_processor")


def _check_sandbox(agent: Any) -> None:
    if is_a(agent, "agents.sandbox", "SandboxAgent"):
        raise AdapterError(
            f"the agent {agent.name!r} is a SandboxAgent, whose sandbox is given to the run: name a function "
            "instead, async def solve(question): return (await Runner.run(agent.clone(), question, "
            "run_config=RunConfig(sandbox=…))).final_output"
        )


def _check_input(agent: Any, input: Any) -> None:
    if isinstance(input, str) or (input and isinstance(input, list) and all(isinstance(item, dict) for item in input)):
        return
    raise AdapterError(
        f"the agent {agent.name!r} takes a text or a list of messages, and the task's input is "
        f"{'an empty list' if input == [] else f'a {type(input).__name__}'}: give each task a text, or name a function "
        "instead of the agent, which takes the input and calls Runner.run"
    )
