"""``agl prompts``: what a run's agents tell their models to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.prompts import FoundPrompt
    from agentlightning.store.base import Store

SHOWN = 3
"""How many of an agent's prompts are shown; one made anew for every call would fill the screen."""


@click.command()
@click.argument("run")
@click.option("--all", "every", is_flag=True, help=f"Show all prompts of an agent, not only the {SHOWN} most used.")
@store_option
def prompts(run: str, every: bool, url: str) -> None:
    """List the prompts of a RUN's agents: system prompts, and those that the code asks for by name."""
    from itertools import groupby

    from rich.padding import Padding
    from rich.text import Text

    found = read_store(url, lambda store: _found(store, run))
    if not found:
        click.echo("no agent of this run gave its model a system prompt, and none asked for a prompt by name")
        return
    screen = console()
    for whose, group in groupby(found, key=_whose):
        own = list(group)
        screen.print(Text(whose, style="bold"))
        for prompt in own if every else own[:SHOWN]:
            unit = "call" if prompt.name is None else "rollout"
            times = f"{prompt.calls} {unit}{'s' * (prompt.calls != 1)}"
            what = f"{prompt.role} message of {times}" if prompt.name is None else f"default in {times}"
            screen.print(Text(f"  {what}", style="dim"))
            screen.print(Padding(Text(prompt.text), (0, 0, 0, 4), expand=False))
        if len(own) > SHOWN and not every:
            screen.print(Text(f"  and {len(own) - SHOWN} more (--all shows them)", style="dim"))
    click.echo("\nTo try another: `prompts: {AGENT: text}` in the config.", err=True)


def _whose(prompt: FoundPrompt) -> str:
    return prompt.agent or "(no agent's name)" if prompt.name is None else f"{prompt.name} (by name)"


async def _found(store: Store, run: str) -> list[FoundPrompt]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.prompts import prompts_of

    return await prompts_of(store, (await find_run(store, run)).id)
