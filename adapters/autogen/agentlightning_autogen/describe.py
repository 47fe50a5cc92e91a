"""What can be found out about an agent or team by looking at it: its models, prompts and tools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core.models import ChatCompletionClient, SystemMessage
from autogen_core.tools import BaseTool, StaticWorkbench
from pydantic import BaseModel

from agentlightning.describing import Found, add, walk

PROMPT_NAME = re.compile(r"prompt|instruction|system", re.IGNORECASE)
LOOKED_INTO = (ChatAgent, Team, BaseTool, StaticWorkbench)


def inspect_agent(agent: Any) -> Found:
    """Looks at an agent without running it."""
    return walk(agent, _note, _parts)


def _note(found: Found, name: str, value: Any) -> None:
    if isinstance(value, SystemMessage):
        add(found.prompts, value.content)
    elif isinstance(value, str) and " " in value and PROMPT_NAME.search(name):
        add(found.prompts, value)
    elif isinstance(value, BaseTool):
        add(found.tools, value.name)
    elif isinstance(value, ChatCompletionClient):
        add(found.models, _model(value))


def _model(client: ChatCompletionClient) -> str:
    try:
        config = client.dump_component().config
    except Exception:  # noqa: BLE001 - a client need not have a config
        return type(client).__name__
    model = config.get("model")
    return model if isinstance(model, str) else type(client).__name__


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from (("", item) for item in value)
    elif isinstance(value, LOOKED_INTO) and not isinstance(value, BaseModel):
        yield from vars(value).items()
