"""``agl otel``: receive traces, send runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import FiniteRange, read_store, store_option
from agentlightning.cli.commands.signals import stop_event

if TYPE_CHECKING:
    from agentlightning.store.base import Store


@click.group()
def otel() -> None:
    """Receive OpenTelemetry traces; send runs as traces."""


@otel.command()
@store_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4318,
    show_default=True,
    help="Port to listen on; 0 is any free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--run", metavar="NAME", help="One run for everything.  [default: a run for each service]")
@click.option(
    "--settle",
    type=FiniteRange(0, 86400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a trace is waited for, after the last of it came, before its rollout is finished.",
)
def receive(url: str, port: int, host: str, run: str | None, settle: float) -> None:
    """Receive traces over OTLP/HTTP into a store, until stopped."""
    from agentlightning.adapterkit.listening import prepare_to_serve
    from agentlightning_otel.server import OtlpServer

    prepare_to_serve()
    server = OtlpServer(url, host=host, port=port, run=run, settle=settle)
    with server:
        stopped = stop_event()  # before anybody is told that it serves
        click.echo(f"receiving traces at {server.endpoint}/v1/traces into {url}; stop with Ctrl-C")
        click.echo(f"agents send them there with OTEL_EXPORTER_OTLP_ENDPOINT={server.endpoint}")
        stopped.wait()
    click.echo(f"{server.finished} rollout{'' if server.finished == 1 else 's'} received")


@otel.command()
@click.argument("run")
@click.option("--endpoint", required=True, help="Address of an OTLP/HTTP endpoint, such as http://127.0.0.1:4318.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Header to send along, a key for instance."
)
@store_option
def send(run: str, endpoint: str, headers: tuple[str, ...], url: str) -> None:
    """Send the rollouts of a RUN to an OTLP/HTTP endpoint."""
    from agentlightning.cli.commands.find import find_run
    from agentlightning_otel.errors import OtlpError
    from agentlightning_otel.sender import Sender, send_run

    pairs = dict(header.partition("=")[::2] for header in headers)
    if not all(name and value for name, value in pairs.items()):
        raise OtlpError("--header: expected name=value")
    sender = Sender(endpoint, pairs)

    async def do(store: Store) -> tuple[int, int]:
        return await send_run(store, await find_run(store, run), sender)

    try:
        rollouts, spans = read_store(url, do)
    finally:
        sender.close()
    click.echo(f"{rollouts} rollouts ({spans} spans) sent to {sender.url}")
