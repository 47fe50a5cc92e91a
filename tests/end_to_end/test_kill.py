"""kill -9 at any moment: what was finished stays, is not done again, and the run goes on to its end."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentlightning.cli import main
from agentlightning.store import open_store

AGL = str(Path(sys.executable).with_name("agl"))
KILLS = 10


def train(project: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = (project / "log.txt").open("ab")
    return subprocess.Popen(
        [AGL, "train", "config.yaml", *arguments], cwd=project, env=environment, stdout=log, stderr=log
    )


def rollouts(project: Path) -> dict[str, dict]:
    """Every rollout of the store by id, as it is exported."""
    store = project / "store.db"
    if not store.exists():
        return {}
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        try:
            runs = [run for (run,) in database.execute("SELECT id FROM runs")]
        except sqlite3.OperationalError:
            return {}
    database.close()
    found = {}
    for run in runs:
        command = ["export", run, "--format", "jsonl", "--store", f"sqlite:///{store}", "--output", "-"]
        exported = CliRunner().invoke(main, command, catch_exceptions=False)
        found.update({entry["id"]: entry for entry in map(json.loads, exported.stdout.splitlines())})
    return found


@pytest.mark.timeout(900)
def test_a_run_killed_ten_times_at_random_moments_loses_and_repeats_nothing(project):
    chance = random.Random(0)
    finished: dict[str, tuple] = {}
    kills = 0
    process = train(project)
    while kills < KILLS:
        wait_until_it_has_begun(project, process, len(finished))
        time.sleep(chance.uniform(0, 0.6))
        if process.poll() is not None:
            assert process.returncode == 0, (project / "log.txt").read_text()[-3000:]
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        now = final(rollouts(project))
        assert finished.items() <= now.items(), "a finished rollout is lost, or was done again"
        finished = now
        if status(project) == "succeeded":
            break
        process = train(project, "--resume")
    assert status(project) == "succeeded" or process.wait(timeout=300) == 0, (project / "log.txt").read_text()[-3000:]

    everything = rollouts(project)
    assert finished.items() <= final(everything).items()
    assert len(everything) == 4 * 2 * 4 + 2 * 2 * 6, "four steps of two groups of four, two evaluations of two kinds"
    assert {entry["status"] for entry in everything.values()} == {"succeeded"}
    with sqlite3.connect(project / "store.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert kills >= 3, "the run ended before it could be killed often enough to say anything"


def status(project: Path) -> str:
    """How the run stands, by the store: a kill may come after its end, when only the table is still to be printed."""

    async def ask() -> str:
        store = open_store(f"sqlite:///{project / 'store.db'}?mode=ro")
        try:
            return (await store.runs())[0].status
        finally:
            await store.close()

    return asyncio.run(ask())


def final(entries: dict[str, dict]) -> dict[str, tuple]:
    done = {key: entry for key, entry in entries.items() if entry["status"] in ("succeeded", "failed")}
    return {key: (entry["attempt"], entry["ended_at"], json.dumps(entry["output"])) for key, entry in done.items()}


def wait_until_it_has_begun(project: Path, process: subprocess.Popen, known: int) -> None:
    """Returns when the process has finished a rollout more than is known, or ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if count_finished(project) > known:
            return
        time.sleep(0.05)


def count_finished(project: Path) -> int:
    if not (project / "store.db").exists():
        return 0
    with sqlite3.connect(f"file:{project / 'store.db'}?mode=ro", uri=True, timeout=5) as database:
        try:
            ((count,),) = database.execute("SELECT count(*) FROM rollouts WHERE status IN ('succeeded', 'failed')")
        except sqlite3.OperationalError:
            return 0
    database.close()
    return int(count)
