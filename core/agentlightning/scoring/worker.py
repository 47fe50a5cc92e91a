"""The process that `agentlightning.scoring.processes` starts: one reward, in its main thread, call after call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable

from agentlightning.child_processes import ending_after, own_streams, read, write
from agentlightning.config import RewardConfig
from agentlightning.loading import explain
from agentlightning.plugins import plugins
from agentlightning.records import decode, encode
from agentlightning.scoring.component import Component, Scored, make_component
from agentlightning.scoring.processes import Answer, Request, Started

GRACE_SECONDS = 10.0
"""Past its limit by that, a process ends itself."""


def main() -> None:
    """Answers requests on standard input until it is closed."""
    requests, answers = own_streams()
    try:
        component = make_component(decode(read(requests), RewardConfig), plugins(), "reward")
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001 - told to whoever waits
        write(answers, encode(Started(error=explain(error))))
        return
    write(answers, encode(Started()))
    with asyncio.Runner() as runner:
        while True:
            try:
                request: Request = decode(read(requests), Request)
            except EOFError:
                return
            with ending_after(request.seconds + GRACE_SECONDS):
                write(answers, encode(Answer(scored=_score(component, request, runner))))
            _forget_alarms()


def _score(component: Component, request: Request, runner: asyncio.Runner) -> list[Scored]:
    async def settled(value: Awaitable[object]) -> object:
        return await value

    try:
        value = component.call(request.call)
        if isinstance(value, Awaitable):
            value = runner.run(settled(value))
    except BaseException as error:  # noqa: BLE001 - whatever a reward raises is its failure
        return [component.unscored(error) for _ in request.call.rollouts]
    return component.scored(value, len(request.call.rollouts))


def _forget_alarms() -> None:
    """One that a reward has set and left would end the next call."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
