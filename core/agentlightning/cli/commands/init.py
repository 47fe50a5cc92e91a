"""``agl init``: a first config for an agent of the user's own."""

from __future__ import annotations

from pathlib import Path

import click

from agentlightning.cli.commands.common import console


@click.command()
@click.argument("agent", metavar="MODULE:ATTRIBUTE")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Folder in the current one to write to.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(agent: str, output: Path, force: bool) -> None:
    """Write a config to train an agent.

    Beside agentlightning.yaml: a reward (reward.py) and example tasks (tasks.jsonl).
    """
    from rich.text import Text

    from agentlightning.cli.init import adapter_of, write
    from agentlightning.installing import install_command
    from agentlightning.plugins import plugins

    adapter = adapter_of(agent, plugins())
    terminal = console()
    terminal.print(Text(f"agent    {agent}\nadapter  {adapter}"), soft_wrap=True)
    installed = {name for plugin in plugins().installed() for names in plugin.registers.values() for name in names}
    paths = write(agent, output, force=force)
    terminal.print(Text(f"\nwritten: {', '.join(map(str, paths))}"), soft_wrap=True)
    for name, why in (("openai", "which sees the agent's model calls"), ("grpo", "the algorithm of this config")):
        if name not in installed:
            needed = f"agentlightning-{name}"
            terminal.print(Text(f"still needed: {needed}, {why}: {install_command(needed)}"), soft_wrap=True)
    config, reward, tasks = paths
    terminal.print(Text(f"next: put your tasks in {tasks}, say in {reward} what is good, then\n  agl train {config}"))
