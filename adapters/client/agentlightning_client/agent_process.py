"""The process that `agentlightning_client.agent_processes` starts: one agent, rollout after rollout."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence

from agentlightning.agent_here import AgentHere, Assignment
from agentlightning.agents import load_agent
from agentlightning.child_processes import ending_after, own_streams, read, write
from agentlightning.loading import explain
from agentlightning.plugins import plugins
from agentlightning.records import Span, decode, encode
from agentlightning.threads import use_daemon_threads
from agentlightning_client.agent_processes import GRACE_SECONDS, Agent, Answer, Ended, Recorded, Started


def main() -> None:
    """Runs the attempts that are asked for on standard input, until that is closed."""
    requests, answers = own_streams()
    writing = threading.Lock()

    def answer(message: Answer) -> None:
        with writing:
            try:
                write(answers, encode(message))
            except OSError:  # nobody is left to tell
                os._exit(1)

    def keep(spans: Sequence[Span]) -> None:
        answer(Recorded(spans=list(spans)))

    try:
        agent: Agent = decode(read(requests), Agent)
        here = AgentHere(*load_agent(agent.name, plugins()), timeout=agent.timeout)
    except EOFError:
        return
    except BaseException as error:  # noqa: BLE001 - told to whoever waits
        answer(Started(error=explain(error)))
        return
    answer(Started())
    with asyncio.Runner() as runner:
        use_daemon_threads(runner.get_loop())
        while True:
            try:
                assignment: Assignment = decode(read(requests), Assignment)
            except EOFError:
                break
            with ending_after(agent.timeout + 2 * GRACE_SECONDS):
                answer(Ended(performed=runner.run(here.perform(assignment, keep))))
    os._exit(0)  # threads that the agent has left must not keep it alive
