"""``agl failures``: what went wrong in a run, how often, and over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agentlightning.cli.commands.common import check_since, console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.failures import FailureReport
    from agentlightning.store.base import RunRecord, Store

    Show = Callable[[FailureReport, RunRecord], None]

LOOK_AGAIN_SECONDS = 10.0
"""Of a run that is followed: its steps are looked at this often where no rollout ends."""
GOES_ON = ("running", "live")


@click.command()
@click.argument("run", required=False)
@click.option(
    "--by",
    type=click.Choice(["type", "agent", "tool", "model"]),
    default="type",
    show_default=True,
    help="What the failures are counted by.",
)
@click.option(
    "--since", callback=check_since, metavar="TIME", help="Only what has ended since: 30m, 24h, 7d, 2026-01-31."
)
@click.option("--over-time", is_flag=True, help="Show when it was, too.")
@click.option("--follow", is_flag=True, help="Show it again whenever a rollout ends, until the run or Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --follow, a line for each change.")
@store_option
def failures(
    run: str | None, by: Any, since: str | None, over_time: bool, follow: bool, as_json: bool, url: str
) -> None:
    """Count what failed in RUN, by default the one that began last: rollouts, and steps that a rollout survived.

    RUN is an id, or its beginning. Every share comes with its 95 % interval and the last rollout that failed so.
    """
    from agentlightning.failures import failure_report
    from agentlightning.formatting import parse_since

    async def report(store: Store, found: RunRecord) -> FailureReport:
        begin = None if since is None else parse_since(since)  # each time: so long ago is later by then
        return await failure_report(store, found.id, by=by, since=begin, over_time=over_time)

    async def once(store: Store) -> tuple[FailureReport, RunRecord]:
        found = await _find(store, run)
        return await report(store, found), found

    async def again_and_again(store: Store, show: Show) -> None:
        found, ended = await _find(store, run), -1
        while True:
            now = await store.wait_for_ended(found.id, more_than=ended, seconds=LOOK_AGAIN_SECONDS)
            ended = max(ended, now)
            show(await report(store, found), found)
            found = await store.run(found.id) or found
            if found.status not in GOES_ON:
                return

    with _shown(url, as_json=as_json, live=follow) as show:
        if follow:
            read_store(url, lambda store: again_and_again(store, show))
        else:
            show(*read_store(url, once))


async def _find(store: Store, id: str | None) -> RunRecord:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.errors import StoreError

    if id is not None:
        return await find_run(store, id)
    runs = await store.runs()
    if not runs:
        raise StoreError("there is no run in this store: --store names another, `agl train` makes one")
    return runs[-1]


@contextmanager
def _shown(url: str, *, as_json: bool, live: bool) -> Iterator[Show]:
    """What shows a report: as a line of JSON, in place of the last one on a terminal, or one after the other."""
    import msgspec
    from rich.live import Live

    from agentlightning.cli.failures_view import failures_view

    output = console()
    if as_json:
        yield lambda report, run: click.echo(msgspec.json.encode(report))
    elif live and output.is_terminal:
        with Live(console=output, auto_refresh=False, vertical_overflow="crop") as screen:
            yield lambda report, run: screen.update(failures_view(report, run.name, url), refresh=True)
    else:
        yield lambda report, run: output.print(failures_view(report, run.name, url))
