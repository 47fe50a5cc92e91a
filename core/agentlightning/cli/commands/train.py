"""``agl train``: learn."""

from __future__ import annotations

import shlex
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.app import RUN_LOG
from agentlightning.cli.commands.common import console, overrides_option, read_store, store_hint
from agentlightning.cli.commands.screen import failing_run, own_screen
from agentlightning.cli.commands.signals import ending_by_signal
from agentlightning.defaults import STORE
from agentlightning.errors import AgentLightningError

if TYPE_CHECKING:
    from agentlightning.config import Config
    from agentlightning.store.base import RunRecord, Store
    from agentlightning.trainer import FitResult

LAST = "last"


@click.command()
@click.argument("config", required=False)
@overrides_option
@click.option(
    "--resume",
    is_flag=False,
    flag_value=LAST,
    metavar="[RUN]",
    help="Go on with a run; without RUN, with the last one that has not succeeded.",
)
@click.option("--store", "url", metavar="URL", help="Where the RUN to go on with is, if no CONFIG says it.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def train(
    ctx: click.Context,
    config: str | None,
    overrides: tuple[str, ...],
    resume: str | None,
    url: str | None,
    quiet: bool,
) -> None:
    """Train the agent that the file CONFIG names; or go on with a RUN, whose record names all, without it."""
    from agentlightning.cli.live_progress import make_progress
    from agentlightning.config import load_config

    if config is None and resume is not None and Path(resume).is_file():
        config, resume = resume, LAST  # `--resume config.yaml`: the option has taken the argument for its value
    if config is not None and url is not None:
        raise click.UsageError(f"--store is for going on without CONFIG; here --set store={url} names another")
    if config is None and (resume in (None, LAST) or overrides):
        raise click.UsageError("Missing argument 'CONFIG': the config file, as `agl init` writes it")
    held_out = None
    if config is not None:
        settings = load_config(config, overrides)
    else:
        settings, held_out, resume = read_store(url or STORE, partial(_config_of, str(resume)))
        settings.store = url or STORE
    progress = make_progress(quiet=quiet)
    debug = ctx.find_root().params["debug"]
    with own_screen(progress, settings.directory, quiet=quiet, debug=debug) as log, ending_by_signal():
        from agentlightning.trainer import Trainer

        try:
            with failing_run(ctx, log, progress):
                trainer = Trainer.from_config(settings, held_out=held_out, progress=progress)
                result = trainer.fit(resume=True if resume == LAST else resume)
        except BaseException:
            if RUN_LOG in ctx.meta and progress.run is not None:
                with suppress(OSError):  # the terminal may be gone
                    click.echo(_saved(progress.run, settings.store, config, overrides), err=True)
            raise
    if not quiet:
        _report(result, settings.store)


async def _config_of(id: str, store: Store) -> tuple[Config, str | None, str]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.resume import config_of

    run = await find_run(store, id)
    return *config_of(run), run.id


def _report(result: FitResult, url: str) -> None:
    from rich.text import Text

    from agentlightning.cli.curve import WITHOUT_MATPLOTLIB, can_draw
    from agentlightning.cli.tables import comparisons_table

    output = console()
    if result.comparisons:
        output.print(comparisons_table(result.comparisons))
    for finding in result.findings:
        output.print(Text(finding, style="yellow"), soft_wrap=not output.is_terminal)
    facts = dict(result.results)
    curve = read_store(url, partial(_draw_curve, result))
    if curve is not None:
        facts["curve"] = curve
    facts["run"] = f"{result.run_id}  (agl show {result.run_id}{store_hint(url)})"
    width = max(map(len, facts))
    for name, value in facts.items():
        output.print(Text(f"{name:{width}}  {value}"), soft_wrap=True)
    if curve is None and not can_draw():
        output.print(WITHOUT_MATPLOTLIB, soft_wrap=True)


async def _draw_curve(result: FitResult, store: Store) -> str | None:
    from agentlightning.cli.curve import draw_curve

    run = await store.run(result.run_id)
    return await draw_curve(store, run, Path(result.directory) / "curve.png") if run is not None else None


def _saved(run: RunRecord, url: str, config: str | None, overrides: tuple[str, ...]) -> str:
    """What a run that has stopped leaves behind, and the command that goes on with it."""

    from agentlightning.diagnostics import findings

    async def ask(store: Store) -> tuple[int, int | None, list[str]]:
        rollouts = await store.rollouts(run.id)
        checkpoint = await store.last_checkpoint(run.id)
        step = checkpoint.step if checkpoint is not None else None
        return (
            sum(rollout.finished for rollout in rollouts if rollout.counts),
            step,
            findings(await store.metrics(run.id)),
        )

    command = f"agl train {config}" if config is not None else f"agl train{store_hint(url)}"
    again = " ".join([command, *(f"--set {shlex.quote(override)}" for override in overrides)])
    try:
        finished, step, found = read_store(url, ask)
    except AgentLightningError as error:
        return f"run {run.id} has stopped, and its store cannot be read: {error}"
    if not finished and step is None:
        return "\n".join([*found, f"run {run.id} has stopped before a rollout ended: there is nothing to go on from"])
    point = f"the checkpoint of step {step}" if step is not None else "no checkpoint yet"
    saved = f"run {run.id} has stopped; saved: {finished} finished rollouts, {point}"
    return "\n".join([*found, saved, f"go on with: {again} --resume {run.id}"])
