"""``agl train CONFIG --server URL``: submitted, and watched."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from agentlightning.config import Config
from agentlightning.data import load_split
from agentlightning.errors import DataError
from agentlightning.records import Task, decode, encode
from agentlightning_server.errors import ServerError
from agentlightning_server.training.client import TrainingClient
from agentlightning_server.training.records import RESUMABLE, Submission, Training

OF_THE_SERVER = ("tasks", "store", "directory")
"""Keys of a config that are the server's."""
INTERRUPTED = 130


def submit(url: str, config: Config, *, quiet: bool) -> int:
    """Has the server at ``url`` train, and shows what that says, until it has ended or Ctrl-C; gives its exit code.

    Raises `DataError`, and `ServerError` where the server refuses.
    """
    client = TrainingClient(url)
    training = client.submit(submission_of(config))
    if not quiet:
        click.echo(
            f"training {training.id}: submitted to {client.url}; Ctrl-C stops watching, not the training", err=True
        )
        if training.needs_workers:
            click.echo(f"start a worker: agl work {client.url} --agent {training.agent}", err=True)
    return watch(client, training.id, quiet=quiet)


def submission_of(config: Config) -> Submission:
    """A config, and its tasks, which are read here. Raises `DataError`."""
    train, held_out = load_split(config.tasks, None, config.seed)
    values: dict[str, Any] = msgspec.to_builtins(config)
    kept = {name: value for name, value in values.items() if name not in OF_THE_SERVER}
    return Submission(config=kept, tasks=_rows(train), held_out=_rows(held_out), id=secrets.token_hex(6))


def watch(client: TrainingClient, id: str, *, quiet: bool = False) -> int:
    """Shows the log of a training as it comes; gives the exit code of ``agl``: the training's own, or 130 where Ctrl-C
    has stopped the watching."""
    training: Training | None = None
    try:
        for answer in client.follow(id):
            training = answer.training
            if not quiet:
                click.echo(answer.log, nl=False)
    except KeyboardInterrupt:
        click.echo(f"training {id} goes on; watch it: {command(client, 'log', id)} --follow", err=True)
        click.echo(f"stop it: {command(client, 'stop', id)}", err=True)
        return INTERRUPTED
    except ServerError as error:
        click.echo(f"error: {error}; training {id} may go on: {command(client, 'show', id)}", err=True)
        return 1
    assert training is not None
    return _ended(client, training, quiet=quiet)


def command(client: TrainingClient, name: str, id: str) -> str:
    """The command that does something to a training."""
    return f"agl training {name} {id} --server {client.url}"


def describe(training: Training) -> str:
    """What there is to say of a training, and why."""
    return training.status if training.message is None else f"{training.status}: {training.message}"


def _ended(client: TrainingClient, training: Training, *, quiet: bool) -> int:
    if training.status != "succeeded" or not quiet:
        click.echo(f"training {training.id} {describe(training)}", err=True)
    if training.status in RESUMABLE:
        click.echo(f"go on with: {command(client, 'resume', training.id)}", err=True)
    return 1 if training.exit_code is None else training.exit_code


def _rows(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Tasks as rows of a task file, which say all of them. Raises `DataError` for what JSON has no form for."""
    rows = []
    for task in tasks:
        row: dict[str, Any] = decode(encode(task), dict[str, Any])
        try:
            same = msgspec.json.decode(msgspec.json.encode(row)) == row
        except (TypeError, ValueError, msgspec.MsgspecError):
            same = False
        if not same:
            raise DataError(
                f"task {task.id}: holds what JSON has no form for (bytes, dates, NaN …): a server takes numbers, text, "
                "lists and keys alone"
            )
        rows.append(row)
    return rows
