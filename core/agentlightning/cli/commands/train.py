"""``agl train``: learn."""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from agentlightning.cli.app import RUN_LOG
from agentlightning.cli.commands.common import overrides_option, read_store, store_hint
from agentlightning.cli.commands.outcome import print_result, what_is_saved
from agentlightning.cli.commands.screen import failing_run, own_screen
from agentlightning.cli.commands.signals import ending_by_signal
from agentlightning.defaults import STORE
from agentlightning.errors import AgentLightningError

if TYPE_CHECKING:
    from agentlightning.config import Config
    from agentlightning.hookspecs import Submit
    from agentlightning.store.base import RunRecord, Store

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
@click.option("--server", metavar="URL", help="Train there: a Lightning Server that was started with --train-in.")
@click.option(
    "--from-live",
    metavar="RUN",
    help="Learn from the best that `agl.attach` recorded of a deployed agent in this live run: an id, or a name.",
)
@click.option("--since", metavar="TIME", help="With --from-live: only from what ended since: 24h, 7d, 2026-01-31.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.pass_context
def train(
    ctx: click.Context,
    config: str | None,
    overrides: tuple[str, ...],
    resume: str | None,
    url: str | None,
    server: str | None,
    from_live: str | None,
    since: str | None,
    quiet: bool,
) -> None:
    """Train the agent that the file CONFIG names; or go on with a RUN, whose record names all, without it."""
    from agentlightning.cli.live_progress import make_progress
    from agentlightning.config import load_config

    if config is None and resume is not None and Path(resume).is_file():
        config, resume = resume, LAST  # `--resume config.yaml`: the option has taken the argument for its value
    overrides = (*overrides, *_overrides_of_live(from_live, since))
    if config is not None and url is not None:
        raise click.UsageError(f"--store is for going on without CONFIG; here --set store={url} names another")
    if config is None and (resume in (None, LAST) or overrides):
        raise click.UsageError("Missing argument 'CONFIG': the config file, as `agl init` writes it")
    if server is not None:
        if config is None or resume is not None:
            raise click.UsageError(
                "--server takes a CONFIG, and no --resume: what was submitted goes on by agl training resume ID "
                f"--server {server}"
            )
        _submit(ctx, server, config, overrides, quiet=quiet)
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
        print_result(result, settings.store)


def _overrides_of_live(run: str | None, since: str | None) -> list[str]:
    """The keys of the config that the options stand for."""
    if run is None and since is not None:
        raise click.UsageError("--since goes with --from-live RUN")
    given = {"run": run, "since": since}
    return [f"algorithm.from_live.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


async def _config_of(id: str, store: Store) -> tuple[Config, str | None, str]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.resume import config_of

    run = await find_run(store, id)
    return *config_of(run), run.id


def _submit(ctx: click.Context, url: str, config: str, overrides: tuple[str, ...], *, quiet: bool) -> NoReturn:
    """Hands the run over to whatever trains at ``url``, and ends with its exit code."""
    from agentlightning.config import load_config
    from agentlightning.plugins import plugins

    scheme, separator, _ = url.partition("://")
    if not separator:
        raise click.UsageError(f"--server {url}: expected http://HOST:PORT or https://HOST")
    submit: Submit = plugins().find("submitters", scheme)
    ctx.exit(submit(url, load_config(config, overrides), quiet=quiet))


def _go_on(run: RunRecord, url: str, config: str | None, overrides: tuple[str, ...]) -> str:
    """The command that goes on with a run."""
    command = f"agl train {config}" if config is not None else f"agl train{store_hint(url)}"
    again = " ".join([command, *(f"--set {shlex.quote(override)}" for override in overrides)])
    return f"{again} --resume {run.id}"


def _saved(run: RunRecord, url: str, config: str | None, overrides: tuple[str, ...]) -> str:
    try:
        return what_is_saved(run, url, _go_on(run, url, config, overrides))
    except AgentLightningError as error:
        return f"run {run.id} has stopped, and its store cannot be read: {error}"
