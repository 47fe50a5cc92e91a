"""``python tests/adapters/outline.py EXAMPLE`` prints what is recorded of one of its rollouts, with a model that says
what it is told to."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def outline(name: str) -> list[str]:
    """A line for each span: its structure or kind, its name, its agent."""
    from adapters.examples import EXAMPLES, QUESTION
    from recorded import record
    from stub_server import StubServer

    from agentlightning.agents import load_agent
    from agentlightning.plugins import plugins
    from agentlightning.records import Policy

    agent, adapter = load_agent(EXAMPLES[name].agent, plugins())
    with StubServer() as engine:
        engine.reply(*EXAMPLES[name].answers)
        with record(resources=[Policy(name="policy", model="tiny", base_url=engine.base_url)]) as recorded:
            asyncio.run(adapter.run(agent, QUESTION))
    return recorded.outline()


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples" / sys.argv[1])]
    sys.stdout.write("\n".join(outline(sys.argv[1])) + "\n")
