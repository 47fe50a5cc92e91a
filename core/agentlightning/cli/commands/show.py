"""``agl show``: one run, its rollouts, or one rollout."""

from __future__ import annotations

import click

from agentlightning.cli.commands.common import console, read_store, store_option


@click.command()
@click.argument("id")
@click.option("--tokens", is_flag=True, help="Show the token ids of a rollout's model calls.")
@click.option(
    "--rollouts",
    metavar="failed|best|step=N",
    help="List rollouts of a run, with what went in and what came out: those that failed, those with the highest "
    "outcome, or those of a training step.",
)
@store_option
def show(id: str, tokens: bool, rollouts: str | None, url: str) -> None:
    """Show a run or a rollout; the beginning of its ID is enough."""
    from rich.padding import Padding

    from agentlightning.cli.record_view import view

    output = console()
    for part in read_store(url, lambda store: view(store, id, tokens=tokens, rollouts=rollouts, url=url)):
        output.print(Padding(part, (0, 0, 1, 0), expand=False))
