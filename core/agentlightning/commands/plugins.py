"""``agl plugins``: what is installed."""

from __future__ import annotations

import logging

import click

from agentlightning.commands.options import console


@click.command()
def plugins() -> None:
    """List what is installed, and what is broken."""
    from rich.table import Table
    from rich.text import Text

    from agentlightning.plugins import plugins as found

    logging.getLogger("agentlightning.plugins").setLevel(logging.CRITICAL)
    found().adapters()  # loads them, so that one that does not load is told below
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
