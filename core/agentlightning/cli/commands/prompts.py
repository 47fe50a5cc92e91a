"""``agl prompts``: what a run's agents tell their models to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.cli.prompt_versions import PromptVersion
    from agentlightning.prompts import FoundPrompt
    from agentlightning.store.base import Store

SHOWN = 3
"""How many of an agent's prompts are shown; one made anew for every call would fill the screen."""


@click.command()
@click.argument("run")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help=f"Show all prompts of an agent, not only the {SHOWN} most used; with --diff all versions that were tried.",
)
@click.option("--diff", "diff", is_flag=True, help="Show what the run changed, up to what it published.")
@store_option
def prompts(run: str, every: bool, diff: bool, url: str) -> None:
    """List the prompts of a RUN's agents: system prompts, and those that the code asks for by name."""
    if diff:
        _show_versions(read_store(url, lambda store: _versions(store, run)), every)
        return
    _show_found(run, every, url)


def _show_versions(prompts_of_run: dict[str, list[PromptVersion]], every: bool) -> None:
    from rich.text import Text

    from agentlightning.cli.prompt_versions import coloured, difference, first_of

    if not prompts_of_run:
        click.echo("this run changed no prompt")
        return
    screen = console()
    for name, versions in prompts_of_run.items():
        screen.print(Text(name, style="bold"))
        first = first_of(versions)
        shown = [one for one in versions if one.prompt != first.prompt and (every or one.published)]
        for version in shown:
            screen.print(Text(f"  version {first.prompt.version} → {_heading(version)}", style="dim"))
            for line in difference(first.prompt, version.prompt):
                screen.print(Text("    ").append_text(coloured(line)))
        if not shown:
            screen.print(Text("  unchanged", style="dim"))
        others = len([one for one in versions if one.prompt != first.prompt]) - len(shown)
        if others > 0:
            were = "was" if others == 1 else "were"
            screen.print(Text(f"  {others} more {were} tried (--all shows them)", style="dim"))


def _heading(version: PromptVersion) -> str:
    unit = "rollout" if version.rollouts == 1 else "rollouts"
    mean = "" if version.mean is None else f", mean outcome {version.mean:.3f}"
    published = ", published" if version.published else ""
    return f"{version.prompt.version} ({version.rollouts} {unit}{mean}{published})"


def _show_found(run: str, every: bool, url: str) -> None:
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


async def _versions(store: Store, run: str) -> dict[str, list[PromptVersion]]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.cli.prompt_versions import versions_of

    record = await find_run(store, run)
    return versions_of(await store.resources(record.id), record.resources, await store.rollouts(record.id))
