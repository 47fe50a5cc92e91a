"""``agl export``: what a run recorded, for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import read_store, store_option

if TYPE_CHECKING:
    from agentlightning.cli.export import Format, What
    from agentlightning.store.base import Store


@click.command()
@click.argument("run")
@click.option("--format", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--what", type=click.Choice(["rollouts", "spans", "transitions"]), default="rollouts", show_default=True)
@click.option(
    "--output", type=click.Path(dir_okay=False), help="File to write; - is standard output.  [default: RUN-WHAT.FORMAT]"
)
@store_option
def export(run: str, format: Format, what: What, output: str | None, url: str) -> None:
    """Write what a RUN recorded to a file."""
    from agentlightning.cli.commands.find import find_run
    from agentlightning.cli.export import export as write

    if output == "-" and format == "parquet":
        raise click.UsageError("--output -: only jsonl can be written to standard output")

    async def do(store: Store) -> tuple[Path | None, int]:
        found = await find_run(store, run)
        path = None if output == "-" else Path(output or f"{found.id}-{what}.{format}")
        return path, await write(store, found.id, what=what, format=format, path=path)

    path, count = read_store(url, do)
    click.echo(f"{count} {what if count != 1 else what[:-1]} written to {path or 'standard output'}", err=path is None)
