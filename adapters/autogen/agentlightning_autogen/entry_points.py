"""How agents and teams are run: what is recorded of a deployed one."""

from __future__ import annotations

from typing import Any

from agentlightning.adapterkit.entry_points import EntryPoint, argument
from agentlightning_autogen.adapter import result_of, to_plain


def _input(owner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return to_plain(argument(0, "task")(owner, args, kwargs))


def _output(result: Any) -> Any:
    """A stream ends with the result of its run."""
    return result_of(result) if hasattr(result, "stop_reason") else to_plain(result)


METHODS = ("run", "run_stream")

ENTRY_POINTS = (
    EntryPoint("autogen_agentchat.agents", "BaseChatAgent", METHODS, _input, _output),
    EntryPoint("autogen_agentchat.teams", "BaseGroupChat", METHODS, _input, _output),
)
