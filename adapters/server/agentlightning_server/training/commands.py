"""``agl training``: what a server trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from agentlightning.cli.commands.common import check_since

if TYPE_CHECKING:
    from agentlightning_server.training.records import Training

server_option = click.option(
    "--server", "url", default="http://127.0.0.1:8080", show_default=True, help="URL of the Lightning Server."
)


@click.group()
def training() -> None:
    """Trainings of a Lightning Server: submitted by agl train CONFIG --server URL.

    AGL_SERVER_KEY is the server's key.
    """


def _of_one(function: Callable[..., Any]) -> click.Command:
    """A command about one training of a server."""
    return training.command()(click.argument("id")(server_option(function)))


@training.command("list")
@server_option
def list_trainings(url: str) -> None:
    """Every training of the server, in the order they were submitted."""
    from agentlightning.cli.commands.common import console
    from agentlightning.cli.tables import plain_table
    from agentlightning_server.training.client import TrainingClient

    found = TrainingClient(url).all()
    table = plain_table("Trainings", "id", "name", "status", "steps", "run", "submitted")
    for one in found:
        submitted = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.submitted_at))
        table.add_row(one.id, one.name, one.status, _steps(one), one.run_id or "", submitted)
    console().print(table if found else "no training was submitted to this server")


@_of_one
def show(id: str, url: str) -> None:
    """How a training is doing, and the last lines of its log."""
    from agentlightning.cli.commands.common import console
    from agentlightning.cli.tables import facts_table
    from agentlightning_server.training.client import TrainingClient
    from agentlightning_server.training.submitting import describe

    answer = TrainingClient(url).show(id)
    one = answer.training
    facts = [("training", f"{one.id}  {one.name}"), ("status", describe(one)), ("steps", _steps(one))]
    if one.run_id is not None:
        facts.append(("run", f"{one.run_id}  (agl show {one.run_id} --store {url})"))
    console().print(facts_table(facts))
    click.echo(answer.log, nl=False)


@training.command()
@click.argument("id")
@server_option
@click.option("--follow", "-f", is_flag=True, help="Go on until the training has ended; Ctrl-C stops watching.")
@click.pass_context
def log(ctx: click.Context, id: str, url: str, follow: bool) -> None:
    """What a training has said. With --follow it ends with the exit code of the training."""
    from agentlightning_server.training.client import TrainingClient
    from agentlightning_server.training.submitting import watch

    client = TrainingClient(url)
    if follow:
        client.show(id)  # there is one, before it is watched
        ctx.exit(watch(client, id))
    for answer in client.follow(id, wait=False):
        click.echo(answer.log, nl=False)


@_of_one
def stop(id: str, url: str) -> None:
    """Have a training end as Ctrl-C would; asked a second time, kill it."""
    from agentlightning_server.training.client import TrainingClient

    client = TrainingClient(url)
    _say(client.stop(id))


@_of_one
def resume(id: str, url: str) -> None:
    """Go on with a training that failed or was stopped."""
    from agentlightning_server.training.client import TrainingClient
    from agentlightning_server.training.submitting import command

    client = TrainingClient(url)
    _say(client.resume(id))
    click.echo(f"watch it: {command(client, 'log', id)} --follow")


@_of_one
def delete(id: str, url: str) -> None:
    """Remove a training that has ended: its log, checkpoints and model. Its run stays in the store."""
    from agentlightning_server.training.client import TrainingClient

    click.echo(f"training {TrainingClient(url).delete(id).id} removed")


@training.command()
@server_option
@click.option(
    "--before", callback=check_since, metavar="WHEN", help="Those alone that ended before: 7d ago, or a date."
)
@click.option("--all", "also_succeeded", is_flag=True, help="Those that succeeded, too, with their models.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing.")
def prune(url: str, before: str | None, also_succeeded: bool, yes: bool) -> None:
    """Remove the trainings that failed or were stopped: their logs and checkpoints. Runs stay in the store.

    What was stopped cannot be gone on with after that.
    """
    from agentlightning.formatting import parse_since
    from agentlightning_server.training.client import TrainingClient

    client = TrainingClient(url)
    until = time.time() if before is None else parse_since(before)
    statuses = ("failed", "cancelled", *(("succeeded",) if also_succeeded else ()))
    found = [one for one in client.all() if one.status in statuses and (one.ended_at or 0.0) <= until]
    for one in found:
        click.echo(f"{one.id}  {one.name}  {one.status}")
    if found and (yes or click.confirm(f"remove {len(found)} trainings, with all of their files")):
        for one in found:
            client.delete(one.id)
        click.echo(f"{len(found)} trainings removed")
    else:
        click.echo("nothing was removed")


def _say(training: Training) -> None:
    from agentlightning_server.training.submitting import describe

    click.echo(f"training {training.id} {describe(training)}")


def _steps(training: Training) -> str:
    return "" if training.steps is None else f"{training.step}/{training.steps}"
