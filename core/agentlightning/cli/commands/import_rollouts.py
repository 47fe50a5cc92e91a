"""``agl import``: what other tools have recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import change_store, store_hint, store_option

if TYPE_CHECKING:
    from agentlightning.importers.into_store import Imported


def _weights(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float] | None:
    """The callback of ``--score NAME=WEIGHT``."""
    weights: dict[str, float] = {}
    for value in values:
        name, _, weight = value.rpartition("=") if "=" in value else (value, "", "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise click.BadParameter(f"{value!r}: expected NAME or NAME=WEIGHT", ctx, param) from None
        if not name or not math.isfinite(weights[name]):
            raise click.BadParameter(f"{value!r}: expected NAME or NAME=WEIGHT, a finite one", ctx, param)
    return weights or None


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value}: expected a finite number", ctx, param)
    return value


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The live run that they are added to; made where there is none.")
@click.option("--format", help="Of all files.  [default: what their first records look like]")
@click.option(
    "--score",
    "scores",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    callback=_weights,
    help="A score that is a reward; others become annotations.  [default: all are, with weight 1]",
)
@click.option(
    "--outcome",
    type=float,
    callback=_finite,
    metavar="VALUE",
    help="What a rollout without a score was worth: 1, where they are examples to imitate.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 where anything could not be read, not only where all.")
@store_option
def import_rollouts(
    files: tuple[Path, ...],
    name: str,
    format: str | None,
    scores: dict[str, float] | None,
    outcome: float | None,
    strict: bool,
    url: str,
) -> None:
    """Add what other tools have recorded to a live run.

    FILES are exports: `agl plugins` lists the formats under importers. Give those that belong together at once, spans
    and scores for instance. What was imported before is not added twice.
    """
    from agentlightning.importers.into_store import import_files

    imported = change_store(
        url,
        lambda store: import_files(store, list(files), name=name, format=format, scores=scores, outcome=outcome),
    )
    _tell(imported, url)
    if imported.unread and (strict or not imported.rollouts + imported.known + imported.added_rewards):
        raise click.exceptions.Exit(1)


def _tell(imported: Imported, url: str) -> None:
    formats = ", ".join(sorted(set(imported.formats.values())))
    click.echo(f"{_count(imported.rollouts, 'rollout')} ({_count(imported.spans, 'span')}) of {formats} imported")
    if imported.known:
        click.echo(f"{_count(imported.known, 'rollout')} were there already and stay as they are")
    if imported.added_rewards or imported.added_spans:
        added = f"{_count(imported.added_rewards, 'reward')} and {_count(imported.added_spans, 'span')}"
        click.echo(f"{added} added to what was there")
    if imported.rollouts and imported.scored < imported.rollouts:
        unscored = imported.rollouts - imported.scored
        click.echo(f"{_count(unscored, 'rollout')} without an outcome: feedback gives one, or --outcome here")
    for found in imported.unread:
        click.echo(f"not read: {_count(found.count, found.what)}: {found.reason} ({found.first})")
    if imported.rollouts or imported.known:
        click.echo(f"live run {imported.run_id}: `agl show {imported.run_id}{store_hint(url)}`")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
