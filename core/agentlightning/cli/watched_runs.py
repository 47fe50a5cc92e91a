"""What a terminal shows of several runs that follow one another: each as `agl train` shows it."""

from __future__ import annotations

import click

from agentlightning.cli.live_progress import make_progress
from agentlightning.progress import Progress
from agentlightning.store.base import RunRecord


class WatchedRuns(Progress):
    """Makes the display of each run; ``run`` is the one that is going on."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def of(self, name: str) -> Progress:
        """The display of the run of this name, which says so when it begins."""
        shown = make_progress(quiet=self._quiet)
        begin = shown.start

        def start(run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
            if not self._quiet:
                click.echo(f"\n== {name} ==", err=True)
            self.run = run
            begin(run, steps, concurrency=concurrency)

        shown.start = start  # type: ignore[method-assign]
        return shown
