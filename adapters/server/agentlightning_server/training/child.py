"""The process that trains: ``agl train-submitted FOLDER``, which nobody types."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import click
from rich.console import Console

from agentlightning.cli.app import RUN_LOG
from agentlightning.cli.commands.outcome import print_result, what_is_saved
from agentlightning.cli.commands.screen import failing_run, own_screen
from agentlightning.cli.commands.signals import ending_by_signal
from agentlightning.cli.progress import PlainProgress
from agentlightning.errors import AgentLightningError
from agentlightning.store.base import RunRecord
from agentlightning_server.remote import RemoteStore
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Reached, Start


class ReportedProgress(PlainProgress):
    """The lines of a run, and beside them, in the training's folder, how far it is."""

    def __init__(self, folder: TrainingFolder) -> None:
        super().__init__(Console(stderr=True))
        self._folder = folder

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        self._reached(run, 0, steps)
        super().start(run, steps, concurrency=concurrency)

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        assert self.run is not None
        self._reached(self.run, step, steps)
        super().step(step, steps, metrics)

    def _reached(self, run: RunRecord, step: int, steps: int | None) -> None:
        self._folder.write("reached", Reached(run_id=run.id, step=step, steps=steps))


@click.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_context
def train_submitted(ctx: click.Context, folder: Path) -> None:
    """Train what a server was asked to. The server itself starts this."""
    from agentlightning.trainer import Trainer

    training = TrainingFolder(folder)
    start = training.read("start", Start)
    if start is None:
        raise click.UsageError(f"{folder} is no folder of a training: submit one by agl train CONFIG --server URL")
    progress = ReportedProgress(training)
    with own_screen(progress, str(folder), quiet=False, debug=False) as log, ending_by_signal():
        try:
            with failing_run(ctx, log, progress):
                store = RemoteStore(start.store, session=start.session)
                try:
                    trainer = Trainer.from_config(training.config(), store=store, progress=progress)
                    result = trainer.fit(resume=start.resume)
                finally:
                    asyncio.run(store.close())
        except BaseException:
            if RUN_LOG in ctx.meta and progress.run is not None:
                click.echo(_saved(progress.run, start.store, training.path.name), err=True)
            raise
    print_result(result, start.store)


def _saved(run: RunRecord, url: str, id: str) -> str:
    try:
        return what_is_saved(run, url, f"agl training resume {id}")
    except AgentLightningError as error:
        return f"run {run.id} has stopped, and its store cannot be read: {error}"
