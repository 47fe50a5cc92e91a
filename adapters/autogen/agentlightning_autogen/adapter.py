"""Which AutoGen objects are agents, and how to run one on a task's input."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from agentlightning.adapter import Adapter, supports
from agentlightning.adapterkit.serialize import plain
from agentlightning.adapterkit.typechecks import is_a
from agentlightning.errors import AdapterError

GRACE_SECONDS = 5.0
"""How long a cancelled run may take to end."""


class AutoGenAdapter(Adapter):
    """Runs AutoGen AgentChat agents and teams, each rollout on a copy of its own.

    AutoGen is touched only when the agent's own code has imported it.
    """

    name = "autogen"
    modules = ("autogen_core", "autogen_agentchat.base")
    hooks = "agentlightning_autogen.hooks"
    entry_points = "agentlightning_autogen.entry_points:ENTRY_POINTS"

    def is_supported(self) -> bool:
        """Whether the part of AutoGen that was imported is of a version that is hooked into."""
        part = "autogen-agentchat" if "autogen_agentchat" in sys.modules else "autogen-core"
        return supports(part, "0.7.0", "0.8")

    def accepts(self, agent: Any) -> bool:
        """True for every ``ChatAgent`` and ``Team``."""
        return any(is_a(agent, "autogen_agentchat.base", kind) for kind in ("ChatAgent", "Team"))

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs a copy of the agent with the input as its task; returns plain data, ``{"messages": [{"role", "name",
        "type", "content"}, …], "stop_reason"}``, the answer last.

        The input is a text or a list of messages. What a participant of a team raises comes out as it was raised,
        where AutoGen has a ``RuntimeError`` with its text. Raises `AdapterError` where the input is anything else.
        """
        from autogen_core import CancellationToken

        from agentlightning_autogen.isolation import isolated
        from agentlightning_autogen.span_stack import collect_tasks, root_cause

        task = _to_task(input)
        own = await isolated(agent)
        tasks = collect_tasks()
        token = CancellationToken()
        running = asyncio.ensure_future(own.run(task=task, cancellation_token=token))
        try:
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            token.cancel()
            await _stop(running, tasks)
            raise
        except RuntimeError as error:
            failure = error
        else:
            return result_of(result)
        raise root_cause(failure)


async def _stop(running: asyncio.Future[Any], tasks: set[asyncio.Task[Any]]) -> None:
    """A team that is cancelled waits until its participants have answered: they are cancelled, too."""
    for task in [*tasks, running]:
        task.cancel()
    done, _ = await asyncio.wait([running], timeout=GRACE_SECONDS)
    running.cancel()
    for ended in done:
        if not ended.cancelled():
            ended.exception()


def _to_task(input: Any) -> str | list[Any]:
    """A task's input as AutoGen takes it: a text, or a list of messages (AutoGen's, or of the chat API)."""
    if isinstance(input, str):
        return input
    if is_a(input, "autogen_agentchat.messages", "BaseChatMessage"):
        return [input]
    if isinstance(input, Sequence) and not isinstance(input, bytes) and input:
        messages = [message for message in map(_to_message, input) if message is not None]
        if len(messages) == len(input):
            return messages
    raise AdapterError(
        f"an AutoGen agent takes a text or a list of messages, and the task's input is a {type(input).__name__}: give "
        'each task an input such as "What is 2 + 3?" or [{"role": "user", "content": "What is 2 + 3?"}]'
    )


def _to_message(item: Any) -> Any:
    from autogen_agentchat.messages import BaseChatMessage, TextMessage

    if isinstance(item, BaseChatMessage):
        return item
    if isinstance(item, Mapping) and isinstance(item.get("content"), str):
        return TextMessage(content=item["content"], source=str(item.get("name") or item.get("role") or "user"))
    return None


def result_of(result: Any) -> dict[str, Any]:
    """The ``TaskResult`` of a run as plain data."""
    return {"messages": [_from_message(message) for message in result.messages], "stop_reason": result.stop_reason}


def _from_message(message: Any) -> dict[str, Any]:
    """A message or event; ``content`` is its text, or a structured message's content as a mapping."""
    from autogen_agentchat.messages import BaseChatMessage, HandoffMessage, StructuredMessage

    is_text = isinstance(message, BaseChatMessage) and not isinstance(message, StructuredMessage)
    return {
        "role": "user" if message.source == "user" else "assistant",
        "name": message.source,
        "type": type(message).__name__.partition("[")[0],
        "content": message.to_text() if is_text else to_plain(message.content),
        **({"target": message.target} if isinstance(message, HandoffMessage) else {}),
    }


def to_plain(value: Any) -> Any:
    """``value`` with every pydantic model and dataclass in it as a mapping; text for what is no data."""
    return plain(value, _convert)


def _convert(value: Any) -> Any:
    if is_a(value, "pydantic", "BaseModel"):
        return to_plain(value.model_dump())
    return value if is_dataclass(value) and not isinstance(value, type) else str(value)
