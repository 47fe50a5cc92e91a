"""How agents of the SDK are run: what is recorded of a deployed one."""

from __future__ import annotations

import asyncio
from typing import Any

from agentlightning.adapterkit.entry_points import EntryPoint, argument
from agentlightning_openai_agents.adapter import to_plain


def _output(result: Any) -> Any:
    return to_plain(result.final_output)


def _task_of(result: Any) -> asyncio.Future[Any] | None:
    """A streamed run goes on in a task when its method has returned."""
    task: asyncio.Future[Any] | None = result.run_loop_task
    return task


_input = argument(1, "input")

ENTRY_POINTS = (
    EntryPoint("agents.run", "Runner", ("run", "run_sync"), _input, _output),
    EntryPoint("agents.run", "Runner", ("run_streamed",), _input, _output, _task_of),
)
