"""``agl rollback``: back to what was in production before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import change_store, read_store, store_option
from agentlightning.defaults import LIVE_RUN

if TYPE_CHECKING:
    from agentlightning.store.base import Store
    from agentlightning.store.promotions import Promotion


@click.command()
@click.argument("name", metavar="[TARGET]", default=LIVE_RUN)
@click.option("--reason", default="by hand", show_default=True, help="Why; it is kept.")
@store_option
def rollback(name: str, reason: str, url: str) -> None:
    """End the canary of the deployed agent TARGET (live), or else go back to what was in production before."""
    from agentlightning.online.attach import run_id
    from agentlightning.promotion.production import tell

    target = run_id(name)
    read_store(url, lambda store: store.promotions(target))  # a store that is not there is not made
    rolled, now = change_store(url, lambda store: _rolled_back(store, target, reason))
    for one in (rolled, *([now] if now is not None else [])):
        tell(one)
    click.echo(str(rolled))
    click.echo(str(now) if now is not None else f"{target}: the agent has its own prompts and models again")


async def _rolled_back(store: Store, target: str, reason: str) -> tuple[Promotion, Promotion | None]:
    from agentlightning.promotion.production import roll_back

    return await roll_back(store, target, reason)
