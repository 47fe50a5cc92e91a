"""What can be found out about an agent by looking at it: its models, instructions and tools, and those of the agents
behind it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from agents import Agent
from agents.models import get_default_model

from agentlightning_openai_agents import private


@dataclass
class Found:
    """What the agents hold, each thing once."""

    models: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


def inspect_agent(agent: Any) -> Found:
    """Looks at an agent without running it. Instructions that a function makes are not known before it runs."""
    found, seen = Found(), set[int]()
    waiting = deque([agent])
    while waiting:
        one = waiting.popleft()
        if not isinstance(one, Agent) or id(one) in seen:
            continue
        seen.add(id(one))
        _add(found.models, _model_name(one.model))
        _add(found.prompts, one.instructions)
        for tool in one.tools:
            _add(found.tools, getattr(tool, "name", None))
        waiting.extend(private.agents_behind(one))
    return found


def _model_name(model: Any) -> Any:
    return get_default_model() if model is None else getattr(model, "model", model)


def _add(texts: list[str], text: Any) -> None:
    if isinstance(text, str) and text and text not in texts:
        texts.append(text)
