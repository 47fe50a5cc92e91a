"""A comparison of algorithms as a table of the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from agentlightning.cli.tables import number_table
from agentlightning.levers.comparison import LeverComparison
from agentlightning.levers.texts import HEADINGS, table_of, title_of


def levers_table(found: LeverComparison) -> Table:
    """The baseline, and each lever that could be compared; green is what is shown to be better."""
    table = number_table(title_of(found))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right", no_wrap=True)
    better = {row.name for row in found.rows if row.is_better(found.alpha)}
    for cells in table_of(found):
        styles = ["green" if cells[0] in better and heading == "change" else "" for heading in HEADINGS]
        table.add_row(*(Text(cell, style=style) for cell, style in zip(cells, styles, strict=True)))
    return table
