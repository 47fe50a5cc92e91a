"""What can be found out about an agent or team by looking at it: its models, prompts and tools."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autogen_agentchat.base import ChatAgent, Team
from autogen_core.models import ChatCompletionClient, SystemMessage
from autogen_core.tools import BaseTool, StaticWorkbench
from pydantic import BaseModel

logger = logging.getLogger(__name__)

MAX_OBJECTS = 5000
PROMPT_NAME = re.compile(r"prompt|instruction|system", re.IGNORECASE)
LOOKED_INTO = (ChatAgent, Team, BaseTool, StaticWorkbench)


@dataclass
class Found:
    """What an agent holds, each thing once, in the order of the walk."""

    models: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


def inspect_agent(agent: Any) -> Found:
    """Looks at an agent without running it."""
    found = Found()
    seen: set[int] = set()
    waiting: deque[tuple[str, Any]] = deque([("", agent)])
    while waiting and len(seen) < MAX_OBJECTS:
        name, value = waiting.popleft()
        if id(value) in seen and type(value) is not str:
            continue
        seen.add(id(value))
        try:
            _note(found, name, value)
            waiting.extend(_parts(value))
        except Exception:
            logger.debug("could not look into %r", name, exc_info=True)
    return found


def _note(found: Found, name: str, value: Any) -> None:
    if isinstance(value, SystemMessage):
        _add(found.prompts, value.content)
    elif isinstance(value, str) and " " in value and PROMPT_NAME.search(name):
        _add(found.prompts, value)
    elif isinstance(value, BaseTool):
        _add(found.tools, value.name)
    elif isinstance(value, ChatCompletionClient):
        _add(found.models, _model(value))


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


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
