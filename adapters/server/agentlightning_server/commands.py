"""``agl server`` and ``agl server-key``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from agentlightning.cli.commands.common import store_option
from agentlightning.cli.commands.signals import stop_event

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command()
@store_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free one.")
@click.option(
    "--session-seconds",
    type=click.IntRange(1, 86400),
    default=60,
    show_default=True,
    help="How long a client that is silent keeps its runs and leases.",
)
@click.option(
    "--max-sessions", type=click.IntRange(1, 100_000), default=1024, show_default=True, help="Stores open at once."
)
@click.option(
    "--train-in",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Train what is submitted (agl train CONFIG --server URL); agents and rewards are imported from DIR.",
)
@click.option(
    "--max-trainings", type=click.IntRange(1, 64), default=1, show_default=True, help="Trainings at once; others wait."
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0, 10_000),
    default=32,
    show_default=True,
    help="Trainings that wait; one more is refused.",
)
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="URL",
    help="Pass model calls on to this OpenAI-compatible base URL; several are replicas of one model.",
)
@click.option("--upstream-key-env", metavar="NAME", help="The variable with the key that the upstreams want.")
@click.option(
    "--alert-url",
    metavar="URL",
    envvar="AGL_ALERT_URL",
    help="POST JSON there when the share of a failure changes beyond chance; also from AGL_ALERT_URL.",
)
def server(
    url: str,
    host: str,
    port: int,
    session_seconds: int,
    max_sessions: int,
    train_in: Path | None,
    max_trainings: int,
    max_waiting: int,
    upstreams: tuple[str, ...],
    upstream_key_env: str | None,
    alert_url: str | None,
) -> None:
    """Serve a store over HTTP to agents and trainers elsewhere, until stopped.

    AGL_SERVER_KEY is the key that clients must send, too; without one only this machine is answered.
    """
    from agentlightning.adapterkit.listening import prepare_to_serve
    from agentlightning_server.server import LightningServer

    prepare_to_serve()
    serving = LightningServer(
        url,
        host=host,
        port=port,
        session_seconds=session_seconds,
        max_sessions=max_sessions,
        train_in=train_in,
        max_trainings=max_trainings,
        max_waiting=max_waiting,
        upstreams=upstreams,
        upstream_key_variable=upstream_key_env,
        alert_url=alert_url,
    )
    with serving:
        stopped = stop_event()  # before anybody is told that it serves
        click.echo(f"serving {url} at {serving.url}; stop with Ctrl-C")
        click.echo(f"use it as a store: agl train config.yaml --set store={serving.url}")
        click.echo(f"                   agl runs --store {serving.url}")
        click.echo(f"call models at:    {serving.url}/v1, or {serving.url}/rollouts/ID/v1 to have them recorded")
        if train_in is not None:
            click.echo(f"have it train:     agl train config.yaml --server {serving.url}")
        stopped.wait()


def _seconds(context: click.Context, option: click.Parameter, value: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", value)
    if found is None or not int(found[1]):
        raise click.BadParameter(
            f"{value!r}: expected a number and a unit, such as 90s, 30m, 12h or 7d", context, option
        )
    return float(int(found[1]) * UNITS[found[2]])


@click.command()
@click.option("--run", metavar="ID", help="The run that the key is for.")
@click.option("--rollout", metavar="ID", help="The rollout that the key is for, in place of a run.")
@click.option(
    "--read/--write", "read", default=True, help="What the key allows; writing is reading, too.  [default: read]"
)
@click.option("--expires", callback=_seconds, default="1d", show_default=True, help="90s, 30m, 12h, 7d …")
def server_key(run: str | None, rollout: str | None, read: bool, expires: float) -> None:
    """Print a key for one run, or one rollout, for whoever should reach no other.

    It is signed with AGL_SERVER_KEY, the key of the server; a new one there ends all keys signed with it.
    """
    from agentlightning_server.keys import Keys
    from agentlightning_server.wire import KEY_VARIABLE

    if (run is None) == (rollout is None):
        raise click.UsageError("name one of --run ID and --rollout ID")
    keys = Keys(os.environ.get(KEY_VARIABLE) or None)
    if rollout is not None:
        click.echo(keys.issue_for_rollout(rollout, write=not read, seconds=expires))
    elif run is not None:
        click.echo(keys.issue(run, write=not read, seconds=expires))
