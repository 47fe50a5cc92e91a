"""``agl compare``: several algorithms on one budget, and which of them is worth it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, overrides_option, store_hint
from agentlightning.cli.commands.screen import failing_run, own_screen
from agentlightning.cli.commands.signals import ending_by_signal

if TYPE_CHECKING:
    from agentlightning.levers.comparison import LeverComparison

LAST = "last"


@click.command()
@click.argument("config")
@click.option(
    "--algorithms",
    metavar="A,B",
    help="What to compare: names of algorithms, or of sections in the config's compare.algorithms.  [default: these]",
)
@click.option("--budget", type=click.IntRange(min=1), help="How many rollouts each may cost.  [default: the config's]")
@click.option("--combine", is_flag=True, help="Train the best weights on top of the best prompt, too.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=LAST,
    metavar="[ID]",
    help="Go on with a comparison; without ID, with the last one of this name. What failed is tried again.",
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there: .md, or .json.")
@overrides_option
@click.option("--quiet", is_flag=True, help="Say nothing but the result, and errors.")
@click.pass_context
def compare(
    ctx: click.Context,
    config: str,
    algorithms: str | None,
    budget: int | None,
    combine: bool,
    resume: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    quiet: bool,
) -> None:
    """Compare algorithms on the agent, tasks and reward of the file CONFIG: prompts, model choice, weights.

    Each learns from the same tasks with the same seed and budget of rollouts, and is compared with the agent as it is
    by a paired test on the same held-out tasks. Each is a run of its own in the store. (`agl compare-runs` compares
    two runs that are there.)
    """
    from agentlightning.cli.watched_runs import WatchedRuns
    from agentlightning.config import load_config
    from agentlightning.levers.comparison import Comparing

    if output is not None and output.suffix not in (".md", ".json"):
        raise click.BadParameter(f"{output}: expected a name that ends in .md or .json", ctx, param_hint="--output")
    settings = load_config(config, overrides)
    watched = WatchedRuns(quiet=quiet)
    debug = ctx.find_root().params["debug"]
    comparing: Comparing | None = None
    with own_screen(watched, settings.directory, quiet=quiet, debug=debug) as log, ending_by_signal():
        try:
            with failing_run(ctx, log, watched):
                names = None if algorithms is None else [name.strip() for name in algorithms.split(",")]
                comparing = Comparing(settings, names=names, budget=budget, combine=combine, progress_for=watched.of)
                found = comparing.run(resume=resume == LAST or resume or False)
        except BaseException:
            if comparing is not None and comparing.id is not None:
                with suppress(OSError):  # the terminal may be gone
                    click.echo(f"go on with the same command and --resume {comparing.id}", err=True)
            raise
    _show(found)
    for path in _written(found, output):
        click.echo(f"written to {path}")
    click.echo(f"the runs: agl show {found.id}{store_hint(settings.store)}")


def _show(found: LeverComparison) -> None:
    from rich.text import Text

    from agentlightning.cli.levers_table import levers_table
    from agentlightning.levers.texts import LEGEND, remarks_of

    screen = console()
    screen.print(levers_table(found))
    for line in (LEGEND, *remarks_of(found)):
        screen.print(Text(line, style="dim" if line == LEGEND else ""), soft_wrap=not screen.is_terminal)
    screen.print()
    recommended = Text.assemble("recommended: ", (found.recommendation.lever or "none", "bold"))
    screen.print(recommended)
    screen.print(Text(found.recommendation.reason), soft_wrap=not screen.is_terminal)


def _written(found: LeverComparison, output: Path | None) -> list[Path]:
    """Writes it into the comparison's folder, and where else it is wanted."""
    import msgspec

    from agentlightning.cli.levers_plot import FILE, draw_levers
    from agentlightning.errors import DataError
    from agentlightning.levers.texts import as_markdown

    texts = {".md": as_markdown(found), ".json": msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"}
    folder = Path(found.directory)
    paths = [folder / f"comparison{suffix}" for suffix in texts]
    if output is not None:
        paths.append(output)
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path.suffix], encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}; name another place") from error
    drawn = draw_levers(found, folder / FILE)
    return [*paths, drawn] if drawn is not None else paths
