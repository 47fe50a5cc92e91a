"""``agl plugins``: what is installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from agentlightning.cli.commands.common import console


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("agentlightning.plugins")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@click.command()
def plugins() -> None:
    """List what is installed, and what is broken."""
    from rich.table import Table
    from rich.text import Text

    from agentlightning.plugins import plugins as found

    with _without_warnings():  # what does not load is told below
        found().adapters()
        installed = found().installed()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("plugin", "distribution", "version", "registers"):
        table.add_column(heading, overflow="fold")
    for plugin in installed:
        registered = "\n".join(f"{kind}: {', '.join(names)}" for kind, names in plugin.registers.items())
        table.add_row(
            Text(plugin.name, style="red" if plugin.error else ""),
            plugin.distribution,
            plugin.version,
            Text(registered or ("broken" if plugin.error else "life-cycle hooks only")),
        )
    output = console()
    output.print(table)
    for plugin in installed:
        if plugin.error is not None:
            text = f"\n{plugin.name} of {plugin.distribution} {plugin.version} does not work: {plugin.error}"
            output.print(Text(text, style="red"))
