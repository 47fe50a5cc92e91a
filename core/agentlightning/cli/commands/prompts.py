"""``agl prompts``: what a run's agents tell their models to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.cli.prompts import FoundPrompt
    from agentlightning.store.base import Store

SHOWN = 3
"""How many of an agent's prompts are shown; one made anew for every call would fill the screen."""


@click.command()
@click.argument("run")
@click.option("--all", "every", is_flag=True, help=f"Show all prompts of an agent, not only the {SHOWN} most used.")
@store_option
def prompts(run: str, every: bool, url: str) -> None:
    """List the system prompts of a RUN's agents."""
    from itertools import groupby

    from rich.padding import Padding
    from rich.text import Text

    found = read_store(url, lambda store: _found(store, run))
    if not found:
        click.echo("no agent of this run gave its model a system prompt")
        return
    screen = console()
    for agent, group in groupby(found, key=lambda prompt: prompt.agent):
        own = list(group)
        screen.print(Text(agent or "(no agent's name)", style="bold"))
        for prompt in own if every else own[:SHOWN]:
            screen.print(
                Text(f"  {prompt.role} message of {prompt.calls} call{'s' * (prompt.calls != 1)}", style="dim")
            )
            screen.print(Padding(Text(prompt.text), (0, 0, 0, 4), expand=False))
        if len(own) > SHOWN and not every:
            screen.print(Text(f"  and {len(own) - SHOWN} more (--all shows them)", style="dim"))
    click.echo("\nTo try another: `prompts: {AGENT: text}` in the config.", err=True)


async def _found(store: Store, run: str) -> list[FoundPrompt]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.cli.prompts import prompts_of

    return await prompts_of(store, (await find_run(store, run)).id)
