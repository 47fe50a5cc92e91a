"""A run of `few_shot` from end to end: a real run, a real store, a real endpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from prompt.adding_agent import demonstrations_in, found_in, model, tasks, trainer
from stub_server import StubServer


async def test_demonstrations_that_help_are_published_and_applied(tmp_path: Path, stub: StubServer) -> None:
    stub.reply(model())
    result = await asyncio.to_thread(trainer(tmp_path, stub).fit)
    _, (prompt,), _ = await found_in(tmp_path, result.run_id)
    assert len(prompt.demonstrations) == 4
    assert prompt.template is None
    (comparison,) = result.comparisons
    assert comparison.difference > 0.3
    assert comparison.p < 0.01
    assert result.results["demonstrations"].startswith("4 for agent: ")
    shown = [message for one in prompt.demonstrations for message in one]
    after = [request for request in stub.requests if demonstrations_in(request) == shown]
    assert len(after) >= 20
