"""Trainings that wait, of which there are not too many, and those that have ended, which can be removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from training_project import make_config, make_modules

from agentlightning.cli import main
from agentlightning.config import load_config
from agentlightning.store import open_store
from agentlightning_server.errors import ServerError
from agentlightning_server.server import LightningServer
from agentlightning_server.training.client import TrainingClient
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Job, Training, TrainingStatus
from agentlightning_server.training.submitting import submission_of


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    return make_modules(tmp_path / "modules")


@pytest.fixture
def submit(tmp_path: Path) -> Callable[[TrainingClient], Training]:
    config = make_config(tmp_path / "laptop")
    return lambda client: client.submit(submission_of(load_config(config)))


def left_by_an_earlier_server(modules: Path, id: str, status: TrainingStatus, ended_at: float = 1.0) -> Path:
    """A training that has ended; its folder."""
    folder = TrainingFolder(modules / "trainings" / id)
    folder.path.mkdir(parents=True)
    folder.log.write_text("done\n")
    training = Training(id=id, name="n", agent="a", status=status, submitted_at=1.0, queued_at=1.0, ended_at=ended_at)
    folder.write("job", Job(training=training))
    return folder.path


def test_one_more_than_may_wait_is_refused_and_says_what_to_do(
    serve: Callable[..., LightningServer], modules: Path, submit: Callable[[TrainingClient], Training]
) -> None:
    for pipe in ("reached", "gate"):
        os.mkfifo(modules / pipe)
    client = TrainingClient(serve(train_in=modules, max_waiting=1).url)
    running = submit(client)
    (modules / "reached").read_text()
    waiting = submit(client)
    with pytest.raises(ServerError, match="1 trainings wait already, and no more may"):
        submit(client)
    assert [one.id for one in client.all()] == [running.id, waiting.id]
    client.stop(waiting.id)
    again = submit(client)
    with pytest.raises(ServerError, match="wait already"):
        client.resume(waiting.id)
    with pytest.raises(ServerError, match=f"training {again.id} is queued: stop it first"):
        client.delete(again.id)
    with pytest.raises(ServerError, match=f"training {running.id} is running: stop it first"):
        client.delete(running.id)
    client.stop(again.id)
    client.stop(running.id)
    client.stop(running.id)


def test_a_training_that_has_ended_is_removed_with_its_files_and_its_run_stays(
    serve: Callable[..., LightningServer], modules: Path, submit: Callable[[TrainingClient], Training]
) -> None:
    server = serve(train_in=modules)
    client = TrainingClient(server.url)
    [*_, last] = client.follow(submit(client).id)
    training = last.training
    assert training.status == "succeeded"
    assert client.delete(training.id) == training
    assert client.all() == []
    assert [path.name for path in (modules / "trainings").iterdir()] == ["lock"]
    with pytest.raises(ServerError, match=f"there is no training {training.id}"):
        client.delete(training.id)

    async def status() -> Any:
        store = open_store(server.url)
        run = await store.run(str(training.run_id))
        await store.close()
        return run and run.status

    assert asyncio.run(status()) == "succeeded"


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ((), ["succeeded"]),
        (("--all",), []),
        (("--before", "1970-01-02"), ["late", "succeeded"]),
    ],
)
def test_prune_removes_what_failed_or_was_stopped(
    serve: Callable[..., LightningServer], modules: Path, options: tuple[str, ...], left: list[str]
) -> None:
    names = {"0" * 12: "failed", "1" * 12: "cancelled", "2" * 12: "succeeded", "3" * 12: "late"}
    left_by_an_earlier_server(modules, "0" * 12, "failed")
    left_by_an_earlier_server(modules, "1" * 12, "cancelled")
    left_by_an_earlier_server(modules, "2" * 12, "succeeded")
    left_by_an_earlier_server(modules, "3" * 12, "failed", ended_at=200_000.0)
    url = serve(train_in=modules).url
    done = CliRunner().invoke(main, ["training", "prune", "--server", url, "--yes", *options])
    assert done.exit_code == 0, done.output
    assert sorted(names[one.id] for one in TrainingClient(url).all()) == left


def test_prune_asks_first(serve: Callable[..., LightningServer], modules: Path) -> None:
    folder = left_by_an_earlier_server(modules, "0" * 12, "failed")
    url = serve(train_in=modules).url
    refused = CliRunner().invoke(main, ["training", "prune", "--server", url], input="n\n")
    assert folder.exists()
    assert "remove 1 trainings" in refused.output
    assert "nothing was removed" in refused.output


def test_what_a_killed_server_has_half_removed_is_gone_with_the_next(
    serve: Callable[..., LightningServer], modules: Path
) -> None:
    folder = left_by_an_earlier_server(modules, "0" * 12, "failed")
    folder.rename(folder.with_name(f".{folder.name}"))
    assert TrainingClient(serve(train_in=modules).url).all() == []
    assert not folder.with_name(f".{folder.name}").exists()
