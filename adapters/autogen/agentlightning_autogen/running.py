"""One run of an agent or team on a task's input."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import BaseChatMessage, HandoffMessage, StructuredMessage, TextMessage
from autogen_core import CancellationToken

from agentlightning.errors import AdapterError
from agentlightning_autogen.copies import fresh
from agentlightning_autogen.plain import plain
from agentlightning_autogen.scopes import handling_tasks, root_cause

GRACE_SECONDS = 5.0
"""How long a cancelled run may take to end."""


async def run(agent: Any, input: Any) -> dict[str, Any]:
    """Runs a copy of the agent; see `AutoGenAdapter.run`."""
    task = to_task(input)
    copied = await fresh(agent)
    tasks = handling_tasks()
    token = CancellationToken()
    running = asyncio.ensure_future(copied.run(task=task, cancellation_token=token))
    try:
        result = await asyncio.shield(running)
    except asyncio.CancelledError:
        await _stop(running, token, tasks)
        raise
    except RuntimeError as error:
        failure = error
    else:
        return plain_result(result)
    raise root_cause(failure)


async def _stop(running: asyncio.Future[Any], token: CancellationToken, tasks: set[asyncio.Task[Any]]) -> None:
    """A team that is cancelled waits until its participants have answered: they are cancelled, too."""
    token.cancel()
    for task in [*tasks, running]:
        task.cancel()
    done, _ = await asyncio.wait([running], timeout=GRACE_SECONDS)
    running.cancel()
    for ended in done:
        if not ended.cancelled():
            ended.exception()


def to_task(input: Any) -> str | list[BaseChatMessage]:
    """A task's input as AutoGen takes it: a text, or a list of messages (AutoGen's, or of the chat API)."""
    if isinstance(input, str):
        return input
    if isinstance(input, BaseChatMessage):
        return [input]
    if isinstance(input, Sequence) and not isinstance(input, bytes) and input:
        messages = [_to_message(item) for item in input]
        found = [message for message in messages if message is not None]
        if len(found) == len(messages):
            return found
    raise AdapterError(
        f"an AutoGen agent takes a text or a list of messages, and the task's input is a {type(input).__name__}: give "
        'each task an input such as "What is 2 + 3?" or [{"role": "user", "content": "What is 2 + 3?"}]'
    )


def _to_message(item: Any) -> BaseChatMessage | None:
    if isinstance(item, BaseChatMessage):
        return item
    if isinstance(item, Mapping) and isinstance(item.get("content"), str):
        return TextMessage(content=item["content"], source=str(item.get("name") or item.get("role") or "user"))
    return None


def plain_result(result: TaskResult) -> dict[str, Any]:
    """``{"messages": [{"role", "name", "type", "content"}, …], "stop_reason"}``; the last message is the answer."""
    return {"messages": [plain_message(message) for message in result.messages], "stop_reason": result.stop_reason}


def plain_message(message: Any) -> dict[str, Any]:
    """A message or event; ``content`` is its text, or a structured message's content as a mapping."""
    said = {
        "role": "user" if message.source == "user" else "assistant",
        "name": message.source,
        "type": type(message).__name__.partition("[")[0],
        "content": _content(message),
    }
    if isinstance(message, HandoffMessage):
        said["target"] = message.target
    return said


def _content(message: Any) -> Any:
    if isinstance(message, BaseChatMessage) and not isinstance(message, StructuredMessage):
        return message.to_text()
    return plain(message.content)
