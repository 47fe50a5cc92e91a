"""The one place where it is decided whether a key may do what it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agentlightning_server.errors import RequestError
from agentlightning_server.keys import Grant
from agentlightning_server.methods import Method

RunOf = Callable[[str], Awaitable[str | None]]
"""The run of a rollout; None where there is no such rollout."""


async def refuse_what_is_not_granted(grant: Grant, method: Method, arguments: Any, run_of: RunOf) -> None:
    """Raises `RequestError` with 403 where the arguments reach beyond what is granted."""
    if method.access == "write" and not grant.write:
        raise RequestError(403, f"this key may only read, and {method.name} writes: ask for one made with --write")
    if grant.rollout is not None:
        _refuse_other_rollouts(grant, method, arguments)
    if grant.run is None:
        return
    for run in method.runs(arguments):
        if run != grant.run:
            raise RequestError(403, f"this key is for run {grant.run} alone, and {method.name} asks for run {run}")
    for rollout in dict.fromkeys(method.rollouts(arguments)):
        run_id = await run_of(rollout)
        if run_id != grant.run and (run_id is not None or method.known):
            raise RequestError(403, f"this key is for run {grant.run} alone, and rollout {rollout} is none of it")


def _refuse_other_rollouts(grant: Grant, method: Method, arguments: Any) -> None:
    """A key for one rollout is for what names that one, and nothing else."""
    named = set(method.rollouts(arguments))
    if any(method.runs(arguments)) or named != {grant.rollout}:
        other = next(iter(named - {grant.rollout}), None)
        asked = f"rollout {other}" if other is not None else "more than that"
        raise RequestError(403, f"this key is for rollout {grant.rollout} alone, and {method.name} asks for {asked}")


def narrow(grant: Grant, method: Method, arguments: Any) -> None:
    """Has the arguments reach nothing but the run of the key."""
    if grant.run is not None and method.narrow is not None:
        method.narrow(arguments, grant.run)


def shown(grant: Grant, method: Method, result: Any) -> Any:
    """What of a result is of the run of the key."""
    return result if grant.run is None or method.shown is None else method.shown(result, grant.run)
