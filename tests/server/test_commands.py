"""`agl server` and `agl server-key`, as they are used in a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from store_records import a_run

from agentlightning.cli import main
from agentlightning.store import open_store
from agentlightning_server.keys import Grant, Keys

KEY = "a-key-of-the-tests-0123456789"


def agl(*arguments: str, key: str | None = None) -> Any:
    return CliRunner().invoke(main, arguments, env={"AGL_SERVER_KEY": key})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(process: Any, number: signal.Signals) -> None:
    assert httpx.get(f"{process.url}/health").status_code == 200
    assert process.process.stdout.readline() == f"use it as a store: agl train config.yaml --set store={process.url}\n"
    process.process.send_signal(number)
    assert process.process.wait(60) == 0


async def test_a_server_that_is_stopped_lets_those_go_who_wait(process: Any) -> None:
    store = open_store(process.url)
    await store.open_run(a_run())
    with httpx.stream("POST", f"{process.url}/health") as _:
        os.kill(process.process.pid, signal.SIGTERM)
    assert process.process.wait(60) == 0
    process.start()
    assert [run.id for run in await store.runs()] == ["run"]
    await store.close()


async def test_runs_are_listed_and_shown_from_a_server(server: Any) -> None:
    store = open_store(server.url)
    await store.open_run(a_run("a-run"))
    await store.close_run("a-run", "succeeded")
    await store.close()
    listed = await asyncio.to_thread(agl, "runs", "--store", server.url)
    assert (listed.exit_code, "a-run" in listed.output) == (0, True), listed.output
    missing = await asyncio.to_thread(agl, "show", "b-run", "--store", server.url)
    assert (missing.exit_code, missing.stderr) == (
        2,
        "error: there is no run or rollout 'b-run' in this store; `agl runs` lists the runs\n",
    )


def test_a_server_for_other_machines_wants_a_key(tmp_path: Path) -> None:
    refused = agl("server", "--host", "0.0.0.0", "--store", f"sqlite:///{tmp_path}/store.db")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --host 0.0.0.0 is open to other machines, and there is no key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [("--session-seconds", "nan"), ("--session-seconds", "0"), ("--max-sessions", "0"), ("--port", "65536")],
)
def test_a_number_outside_of_its_range_is_refused(option: str, value: str, tmp_path: Path) -> None:
    refused = agl("server", option, value, "--store", f"sqlite:///{tmp_path}/store.db")
    assert (refused.exit_code, option in refused.stderr) == (2, True)


@pytest.mark.parametrize(("arguments", "write"), [((), False), (("--read",), False), (("--write",), True)])
def test_a_key_for_a_run_is_printed(arguments: tuple[str, ...], write: bool) -> None:
    made = agl("server-key", "--run", "mine", "--expires", "30m", *arguments, key=KEY)
    assert made.exit_code == 0, made.output
    assert Keys(KEY).grant(f"Bearer {made.output.strip()}") == Grant("mine", write)


def test_a_key_cannot_be_made_without_that_of_the_server() -> None:
    refused = agl("server-key", "--run", "mine")
    assert (refused.exit_code, "set AGL_SERVER_KEY to the same value as there" in refused.stderr) == (2, True)


@pytest.mark.parametrize("expires", ["1", "d", "0d", "1w", "-1d", "1.5h", "9999999d"])
def test_a_time_that_is_none_is_refused(expires: str) -> None:
    refused = agl("server-key", "--run", "mine", "--expires", expires, key=KEY)
    assert (refused.exit_code, "such as 90s, 30m, 12h or 7d" in refused.stderr) == (2, True)
