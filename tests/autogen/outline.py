"""Prints what is recorded of one rollout of the example, with a model that says what it is told to.

    python tests/autogen/outline.py

The solver asks the calculator for something that it cannot do, and then for something it can.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples" / "autogen")]


def outline() -> str:
    """One line a span: its structure or kind, its name, its agent."""
    from adapters.house import Recorded
    from stub_server import StubServer, text, tool_call

    from agentlightning.plugins import plugins
    from agentlightning.recording import Recorder, recording
    from agentlightning.records import Policy, Span
    from agentlightning.trainer import load_agent

    team, adapter = load_agent("agent:team", plugins())
    spans: list[Span] = []
    with StubServer() as engine:
        engine.reply(
            tool_call("calculator", id="call_1", expression="9 + 2 pens"),
            tool_call("calculator", id="call_2", expression="9 + 2"),
            text("11"),
            text("The answer is 11."),
        )
        recorder = Recorder("rollout", 1, spans.extend, [Policy(name="policy", model="tiny", base_url=engine.base_url)])
        with recording(recorder):
            asyncio.run(adapter.run(team, "Tom has 9 red pens and 2 blue pens. How many pens does he have?"))
        recorder.close()
    return Recorded(spans).outline()


if __name__ == "__main__":
    sys.stdout.write(f"{outline()}\n")
