"""``agl prune``: checkpoints of runs that nobody goes on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import read_store, store_option

if TYPE_CHECKING:
    from agentlightning.store.base import RunRecord, Store


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--yes", is_flag=True, help="Remove without asking.")
@store_option
def prune(runs: tuple[str, ...], yes: bool, url: str) -> None:
    """Remove the checkpoints of runs that have ended, and free their disk space.

    A run that succeeded keeps only its model anyway. One that did not cannot be resumed after this; all that is
    recorded of it stays. Without RUN, every run of the store; one that is going on is never touched.
    """
    from agentlightning.checkpoints import remove, size_of

    found = [
        (run, folder) for run, folders in read_store(url, lambda store: _prunable(store, runs)) for folder in folders
    ]
    if not found:
        click.echo("no checkpoints of runs that have ended")
        return
    for run, folder in found:
        click.echo(f"{run.id}  {run.status}  {megabytes(size_of(folder))}  {folder}")
    if not yes and not click.confirm("Remove them? These runs can then not be resumed"):
        click.echo("nothing removed")
        return
    still = {run.id for run, _ in read_store(url, lambda store: _prunable(store, [run.id for run, _ in found]))}
    freed = sum(remove(folder) for run, folder in found if run.id in still)
    click.echo(f"{megabytes(freed)} freed")


async def _prunable(store: Store, ids: tuple[str, ...] | list[str]) -> list[tuple[RunRecord, list[Path]]]:
    """Runs that have ended, and the folders of their checkpoints. Raises `StoreError` for a named one that goes on."""
    from agentlightning.checkpoints import checkpoint_folders
    from agentlightning.cli.commands.find import find_run
    from agentlightning.errors import StoreError

    chosen = [await find_run(store, id) for id in ids] if ids else await store.runs()
    going_on = [run.id for run in chosen if run.status == "running"]
    if ids and going_on:
        raise StoreError(f"run {going_on[0]} is going on: its checkpoints are what it would go on from; stop it first")
    ended = [run for run in chosen if run.id not in going_on]
    return [(run, checkpoint_folders(run, await store.last_checkpoint(run.id))) for run in ended]


def megabytes(size: int) -> str:
    """``812 MB``, ``1.6 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
