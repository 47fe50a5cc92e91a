"""The official client of Node gets from the gateway what it gets without it: `nox -s clients` installs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import text, tool_call
from stub_server import StubServer

from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

HERE = Path(__file__).parent
CALLS = 5
"""Of models, among those that calls.mjs makes."""


async def test_the_client_of_node_gets_the_same_answers(tmp_path: Path) -> None:
    with (
        StubServer() as upstream,
        LightningServer(f"sqlite:///{tmp_path}/store.db", port=0, upstreams=[upstream.base_url]) as server,
    ):
        store = RemoteStore(server.url)
        await store.open_run(a_run("mine"))
        await store.enqueue([a_rollout("a", run_id="mine")])
        await store.lease("w", ids=["a"], seconds=FOR_EVER)
        answers = [await _calls(upstream, url) for url in (upstream.base_url, f"{server.url}/rollouts/a/v1")]
        spans = await store.spans("a")
        await store.close()
    assert answers[0] == answers[1]
    assert [answer["way"] for answer in answers[0]].count("models") == 1
    assert [span.generation is not None and span.generation.provenance for span in spans] == ["exact"] * CALLS


async def _calls(upstream: StubServer, base_url: str) -> list[Any]:
    upstream.clear()
    upstream.reply(*[tool_call("add", a=3, b=4), text("It is 7.")] * CALLS)
    command = ["node", str(HERE / "calls.mjs"), base_url, "none"]
    ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]
