"""``agl judge-agreement``: what a judge's scores are worth, beside labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from rich.table import Table

    from agentlightning_judge.agreement import Agreement, Estimate
    from agentlightning_judge.labelled import Labelled


@click.command(name="judge-agreement")
@click.argument("run")
@click.option("--reward", default="judge", show_default=True, metavar="NAME", help="The judge's reward.")
@click.option(
    "--label",
    required=True,
    metavar="NAME",
    help="What it is compared with: a reward of the rollouts (feedback, say), else a reward to be computed of them "
    "(exact_match: by the tasks' expected answers).",
)
@click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Judge the rollouts anew, with the judge of this config; nothing is written to the store.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Look at the last N rollouts at most.",
)
@store_option
def judge_agreement(run: str, reward: str, label: str, config: str | None, limit: int, url: str) -> None:
    """Measure how well the judge of a RUN agrees with labels of its rollouts.

    Rollouts of one group are compared with each other, and those that were scored alone with all others. Intervals are
    bootstraps over groups, or tasks.
    """
    from agentlightning_judge.agreement import over_all, within_groups
    from agentlightning_judge.labelled import look, made_anew

    judge = None if config is None else made_anew(config, reward)
    found = read_store(url, lambda store: look(store, run, reward, label, limit=limit, judge=judge))
    output = console()
    for line in _facts(found, reward, label):
        output.print(line, markup=False, soft_wrap=True)
    rows = [
        ("within groups", within_groups(found.judged)),
        ("scored alone", over_all(found.judged)),
    ]
    known = [(name, agreement) for name, agreement in rows if agreement is not None]
    output.print()
    if known:
        output.print(_table(known))
    else:
        output.print(f"No two rollouts have different labels ({label}): there is nothing to agree with.", markup=False)


def _facts(found: Labelled, reward: str, label: str) -> list[str]:
    lines = [
        f"{found.run}: {len(found.judged)} rollouts with {reward} and {label}; {found.unscored} that the judge could "
        f"not score, {found.unlabelled} without a label"
    ]
    pairs, contradictions = found.metrics.get("pairs", 0), found.metrics.get("contradictions", 0)
    if pairs:
        lines.append(
            f"Contradictions, when shown in another order: {contradictions:g} of {pairs:g} pairs "
            f"({contradictions / pairs:.1%}), which count as ties"
        )
    cost = [
        f"{found.metrics[key]:{form}} {name}"
        for key, name, form in (
            ("calls", "calls", ",.0f"),
            ("cached", "from the cache", ",.0f"),
            ("failed", "unanswered", ",.0f"),
            ("unusable", "unusable replies", ",.0f"),
            ("input_tokens", "tokens in", ",.0f"),
            ("output_tokens", "tokens out", ",.0f"),
            ("dollars", "dollars", ",.4f"),
        )
        if found.metrics.get(key)
    ]
    return [*lines, f"Judging took {', '.join(cost)}"] if cost else lines


def _table(rows: list[tuple[str, Agreement]]) -> Table:
    from agentlightning.cli.tables import plain_table

    right = ("units", "rollouts", "pairs", "right order", "Spearman", "Kendall")
    table = plain_table("Agreement, with 95 % intervals (units: groups, or tasks)", "", *right, right=right)
    for name, one in rows:
        table.add_row(
            name,
            str(one.units),
            str(one.rollouts),
            str(one.pairs),
            *(_shown(estimate) for estimate in (one.accuracy, one.spearman, one.kendall)),
        )
    return table


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} … {estimate.high:.3f})"
