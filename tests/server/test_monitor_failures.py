"""GET /v1/failures gives what ``agl failures --json`` gives, of the run that a key is for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from store_records import a_rollout, a_run, a_step

from agentlightning.cli import main
from agentlightning.records import Failure
from agentlightning_server.keys import Keys
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"


async def fill(server: LightningServer) -> None:
    """Runs ``mine`` and ``theirs``, with a failed rollout and a failed step each."""
    store = RemoteStore(server.url, key=KEY)
    for run in ("mine", "theirs"):
        await store.open_run(a_run(run))
        await store.enqueue([a_rollout(f"{run}-1", run_id=run)])
        [leased] = await store.lease("w", run_id=run)
        store.add_spans([a_step(leased.id, 0, "tool", f"{run}-search", 5.0, "tool_error")])
        leased.status, leased.ended_at = "failed", 6.0
        leased.failure = Failure(type="timeout", message=f"{run} took too long")
        await store.finish(leased)
    await store.close()


@pytest.fixture
def server(serve: Callable[..., LightningServer]) -> LightningServer:
    started = serve(key=KEY)
    asyncio.run(fill(started))
    return started


def ask(server: LightningServer, key: str | None, **parameters: str) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/v1/failures", params=parameters, headers=headers)


def test_it_gives_what_the_command_gives(server: LightningServer, tmp_path: Path) -> None:
    for options, parameters in (
        ((), {}),
        (("--by", "tool", "--over-time"), {"by": "tool", "over_time": "true"}),
        (("--by", "agent", "--since", "1h"), {"by": "agent", "since": "1h"}),
    ):
        answer = ask(server, KEY, run="mine", **parameters)
        command = CliRunner().invoke(
            main, ["failures", "mine", "--json", *options, "--store", f"sqlite:///{tmp_path}/store.db"]
        )
        told, printed = answer.json(), json.loads(command.output)
        for report in (told, printed):
            report.pop("since", None)
        assert (answer.status_code, told) == (200, printed)


def test_a_key_of_a_run_sees_the_failures_of_that_run_alone(server: LightningServer) -> None:
    key = Keys(KEY).issue("mine", write=False, seconds=60)
    for parameters in ({}, {"run": "mine"}):
        answer = ask(server, key, **parameters)
        assert answer.status_code == 200
        assert answer.json()["run_id"] == "mine"
        assert "theirs" not in answer.text
    for run in ("theirs", "nowhere"):
        refused = ask(server, key, run=run)
        assert (refused.status_code, "for run mine alone" in refused.json()["message"]) == (403, True)
    assert ask(server, None, run="mine").status_code == 401
    rollout_key = Keys(KEY).issue_for_rollout("mine-1", write=True, seconds=60)
    assert ask(server, rollout_key, run="mine").status_code == 403


@pytest.mark.parametrize(
    ("parameters", "status", "says"),
    [
        ({}, 400, "which run"),
        ({"run": "nowhere"}, 404, "there is no run nowhere"),
        ({"run": "mine", "by": "color"}, 400, "by"),
        ({"run": "mine", "since": "soon"}, 400, "since: 'soon': expected a time such as 24h"),
        ({"run": "mine", "over_time": "maybe"}, 400, "over_time"),
        ({"run": "mine", "until": "1h"}, 400, "until"),
    ],
)
def test_what_cannot_be_answered_is_said(
    server: LightningServer, parameters: dict[str, str], status: int, says: str
) -> None:
    answer = ask(server, KEY, **parameters)
    assert answer.status_code == status
    assert says in answer.json()["message"]
