"""``agl eval``: how good an agent is, with nothing learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, overrides_option, store_hint
from agentlightning.cli.commands.screen import failing_run, own_screen
from agentlightning.cli.commands.signals import ending_by_signal

if TYPE_CHECKING:
    from agentlightning.config import Config

OWN = "own"


@click.command(name="eval")
@click.argument("config")
@click.option(
    "--model",
    metavar="FOLDER",
    help=f"Model that the trained agents call: a folder, or a hub name; `{OWN}` leaves them their own.  "
    "[default: the one that the config trains, as it is before training]",
)
@click.option("--tasks", metavar="FILE", help="Tasks to run.  [default: those that the config holds out]")
@overrides_option
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def evaluate(
    ctx: click.Context, config: str, model: str | None, tasks: str | None, overrides: tuple[str, ...], quiet: bool
) -> None:
    """Run the agent that the file CONFIG names on tasks, and learn nothing.

    Kept in the store as a run of its own, which `agl compare-runs` compares with others.
    """
    from agentlightning.cli.live_progress import make_progress
    from agentlightning.config import load_config

    settings = without_training(load_config(config, overrides), model, tasks)
    progress = make_progress(quiet=quiet)
    debug = ctx.find_root().params["debug"]
    with own_screen(progress, settings.directory, quiet=quiet, debug=debug) as log, ending_by_signal():
        from agentlightning.trainer import Trainer

        with failing_run(ctx, log, progress):
            result = Trainer.from_config(settings, progress=progress).fit()
    if quiet:
        return
    from agentlightning.cli.tables import evaluations_table

    output = console()
    output.print(evaluations_table(result.evaluations))
    hint = store_hint(settings.store)
    output.print(f"run  {result.run_id}  (agl compare-runs RUN {result.run_id}{hint})", soft_wrap=True, markup=False)


def without_training(config: Config, model: str | None, tasks: str | None) -> Config:
    """The same agent, tasks and reward under the algorithm ``eval``, with the model and sampling of the config."""
    import msgspec

    from agentlightning.config import TasksConfig
    from agentlightning.evaluation import untrained

    algorithm = untrained(config.algorithm, model=None if model == OWN else model, own=model == OWN)
    source: str | TasksConfig = config.tasks
    if tasks is not None:
        fields = source.fields if isinstance(source, TasksConfig) else {}
        source = TasksConfig(train=tasks, held_out=tasks, fields=fields)
    name = f"{config.name}-eval" if config.name else "eval"
    return msgspec.structs.replace(config, algorithm=algorithm, tasks=source, name=name)
