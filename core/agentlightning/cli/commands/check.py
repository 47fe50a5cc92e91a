"""``agl check``: one rollout that counts for nothing, and what it tells."""

from __future__ import annotations

import click

from agentlightning.cli.app import EXIT_FAILED
from agentlightning.cli.commands.common import overrides_option
from agentlightning.cli.commands.screen import own_screen
from agentlightning.cli.commands.signals import ending_by_signal


@click.command()
@click.argument("config")
@overrides_option
@click.pass_context
def check(ctx: click.Context, config: str, overrides: tuple[str, ...]) -> None:
    """Run the agent that the file CONFIG names on one task, as `agl train` does first, and say what happened.

    Learns nothing and keeps nothing. Exits with 1 where there is something to mend before a run.
    """
    from rich.console import Console

    from agentlightning.check import render
    from agentlightning.config import load_config
    from agentlightning.progress import Progress

    class Notes(Progress):
        def phase(self, name: str, done: int = 0, total: int = 0) -> None:
            status.update(name)

        def message(self, text: str) -> None:
            status.console.print(text, markup=False, highlight=False, soft_wrap=True)

    settings, progress = load_config(config, overrides), Notes()
    debug = ctx.find_root().params["debug"]
    status = Console(stderr=True).status("loading")
    with own_screen(progress, settings.directory, quiet=True, debug=debug), ending_by_signal(), status:
        from agentlightning.trainer import Trainer

        report = Trainer.from_config(settings, progress=progress).check()
    click.echo(render(report))
    if not report.ok:
        raise click.exceptions.Exit(EXIT_FAILED)
