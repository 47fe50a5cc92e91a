"""What agents were asked and answered is readable only by its owner."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlightning.algorithm import Algorithm
from agentlightning.config import NoConfig
from agentlightning.records import Span
from agentlightning.store.sqlite import SQLiteStore
from agentlightning.trainer import Trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022], ids=["umask 000", "umask 022"])
def umask(request) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


async def test_a_store_its_log_and_its_folder_are_their_owners(tmp_path, umask) -> None:
    path = tmp_path / "new" / "runs.db"
    store = SQLiteStore(path)
    store.add_spans([Span(rollout_id="r", kind="tool", name="t")])
    await store.flush()
    modes = {file.name: mode(file) for file in path.parent.iterdir()}
    await store.close()
    assert modes == {"runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}
    assert mode(path.parent) == 0o700


async def test_a_store_that_is_there_keeps_its_permissions(tmp_path, umask) -> None:
    path = tmp_path / "runs.db"
    await SQLiteStore(path).close()
    path.chmod(0o640)
    tmp_path.chmod(0o750)
    await SQLiteStore(path).close()
    assert (mode(path), mode(tmp_path)) == (0o640, 0o750)


class Learning(Algorithm):
    async def run(self, run: object) -> None:
        return


async def test_the_folder_of_a_run_is_its_owners(tmp_path, umask) -> None:
    trainer = Trainer(
        agent=lambda question: question,
        tasks=[{"input": "a"}, {"input": "b"}],
        reward=lambda rollout, task: 1.0,
        algorithm=Learning(NoConfig()),
        store=f"sqlite:///{tmp_path / 'runs.db'}",
        directory=tmp_path / "runs",
    )
    result = await trainer.fit_async()
    assert mode(Path(result.directory)) == 0o700
