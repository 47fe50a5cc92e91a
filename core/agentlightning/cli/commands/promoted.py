"""``agl promoted``: what is in production, what was, and how a canary does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import change_store, console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.store.base import Store
    from agentlightning.store.promotions import Promotion

STYLES = {"promoted": "green", "canary": "yellow", "rolled_back": "red", "superseded": "dim"}
WAIT_SECONDS = 60.0


@click.command()
@click.argument("name", metavar="[TARGET]", required=False)
@click.option("--watch", is_flag=True, help="Look at the canary as its runs end, until it is decided.")
@store_option
def promoted(name: str | None, watch: bool, url: str) -> None:
    """List what deployed agents were given, newest last; all of them, or TARGET.

    A canary is looked at, and ended where that decides it: a Lightning Server does so by itself as runs end.
    """
    from rich.text import Text

    from agentlightning.cli.tables import plain_table
    from agentlightning.formatting import format_time
    from agentlightning.online.attach import run_id
    from agentlightning.promotion.production import tell

    target = None if name is None else run_id(name)
    if watch and target is None:
        raise click.UsageError("--watch needs a TARGET")
    known = read_store(url, lambda store: store.promotions(target))
    if not known:
        click.echo("nothing was promoted")
        return
    if any(one.status == "canary" for one in known):
        known, decided, looks = change_store(url, lambda store: _looked(store, target, watch))
        for one in decided:
            tell(one)
        for text in looks:
            click.echo(text)
    table = plain_table("Promotions", "target", "run", "status", "since", "why")
    for one in known:
        status = f"canary, {one.share:.0%}" if one.status == "canary" else one.status.replace("_", " ")
        table.add_row(
            one.target,
            one.run_id,
            Text(status, style=STYLES[one.status]),
            format_time(one.decided_at or one.created_at),
            Text(one.reason),
        )
    console().print(table)


async def _looked(
    store: Store, target: str | None, until_decided: bool
) -> tuple[list[Promotion], list[Promotion], list[str]]:
    """The promotions, those canaries that were decided, and how the others do."""
    from agentlightning.promotion import canary

    decided: list[Promotion] = []
    while True:
        going = [one for one in await store.promotions(target) if one.status == "canary"]
        decided += [one for each in going if (one := await canary.watch(store, each.target)) is not None]
        known = await store.promotions(target)
        going = [one for one in known if one.status == "canary"]
        if not going or not until_decided:
            return known, decided, [f"canary for {one.target}: {await canary.look(store, one)}" for one in going]
        ended = await store.wait_for_ended(going[0].target, more_than=-1, seconds=0)
        await store.wait_for_ended(going[0].target, more_than=ended, seconds=WAIT_SECONDS)
