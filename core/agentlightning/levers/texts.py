"""What came of a comparison, as the cells of a table and as Markdown."""

from __future__ import annotations

from agentlightning.formatting import format_number, format_p
from agentlightning.levers.accounts import Account, Cost
from agentlightning.levers.comparison import LeverComparison
from agentlightning.levers.recommending import Row
from agentlightning.levers.sections import BASELINE

HEADINGS = (
    "lever",
    "before → after",
    "change",
    "95 % interval",
    "p",
    "rollouts",
    "tokens in / out",
    "dollars",
    "minutes",
    "tokens a task",
)
NONE = "–"
LEGEND = (
    "p is that of the paired test against the baseline, after Holm's correction for all levers. Rollouts, tokens and "
    "dollars are those of learning; what the held-out tasks cost is nobody's budget, and is told apart. Minutes are "
    "those of the whole run. Tokens a task are what one run of the agent takes after it."
)


def title_of(found: LeverComparison) -> str:
    """``100 held-out tasks, sampled at temperature 1; 2000 rollouts for each lever (McNemar, exact)``."""
    each = "" if found.samples == 1 else f", {found.samples} times each"
    tests = dict.fromkeys(row.comparison.test for row in found.rows if row.comparison is not None)
    test = f" ({' / '.join(tests)})" if tests else ""
    return f"{found.tasks} held-out tasks, {found.way}{each}; {found.budget} rollouts for each lever{test}"


def table_of(found: LeverComparison) -> list[tuple[str, ...]]:
    """The cells under `HEADINGS`: the baseline, then the levers that could be compared."""
    mean = NONE if found.baseline is None else format_number(found.baseline)
    baseline = (BASELINE, mean, *[NONE] * 3, *_costs(found.baseline_account))
    return [baseline, *(_cells(row) for row in found.rows if row.comparison is not None)]


def remarks_of(found: LeverComparison) -> list[str]:
    """What is said under the table: levers that could not be compared, what a reader should know, what measuring
    took."""
    lines = [f"{row.name}: {row.reason}{_spent(row)}" for row in found.rows if row.comparison is None]
    accounts = [found.baseline_account, *(row.account for row in found.rows if row.account is not None)]
    measured = sum((one.evaluation for one in accounts), Cost())
    lines.append(
        f"measuring on the held-out tasks took {measured.rollouts} rollouts, {_tokens(measured)} tokens and "
        f"{_dollars(measured)} dollars in all"
    )
    return [*lines, *found.notes]


def as_markdown(found: LeverComparison) -> str:
    """All of it, as a section of a README would have it."""
    alignment = ["---", *["---:"] * (len(HEADINGS) - 1)]
    rows = [HEADINGS, alignment, *table_of(found)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in rows)
    remarks = "\n".join(f"- {line}" for line in remarks_of(found))
    return (
        f"{title_of(found)}\n\n{table}\n\n{LEGEND}\n\n{remarks}\n\n**Recommended:** "
        f"{found.recommendation.lever or 'none'}. {found.recommendation.reason}\n"
    )


def _cells(row: Row) -> tuple[str, ...]:
    it = row.comparison
    if it is None:
        return (row.name, *[NONE] * (len(HEADINGS) - 1))
    interval = NONE if it.low is None or it.high is None else f"{it.low:+.3f} … {it.high:+.3f}"
    return (
        row.name,
        f"{format_number(it.before)} → {format_number(it.after)}",
        f"{it.difference:+.3f}",
        interval,
        NONE if row.p is None else format_p(row.p),
        *_costs(row.account or Account()),
    )


def _costs(account: Account) -> tuple[str, ...]:
    used = NONE if account.task_tokens is None else f"{account.task_tokens:.0f}"
    learning = account.learning
    return str(learning.rollouts), _tokens(learning), _dollars(learning), f"{account.seconds / 60:.1f}", used


def _spent(row: Row) -> str:
    if row.account is None or not row.account.learning.rollouts:
        return ""
    return f" ({row.account.learning.rollouts} rollouts, {row.account.seconds / 60:.1f} minutes)"


def _tokens(cost: Cost) -> str:
    if not cost.tokens and (cost.uncounted or not cost.calls):
        return NONE
    return f"{_short(cost.input_tokens)} / {_short(cost.output_tokens)}"


def _dollars(cost: Cost) -> str:
    if cost.unpriced:
        return f"≥ {cost.dollars:.3g}" if cost.dollars else "?"
    return f"{cost.dollars:.3g}"


def _short(count: int) -> str:
    """``734``, ``12k``, ``3.4M``."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1_000_000 else f"{count / 1e6:.1f}M"
