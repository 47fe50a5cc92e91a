"""examples/text_to_sql, and a question to score an answer to."""

from __future__ import annotations

from applications.example_copy import EXAMPLES

from agentlightning.records import Task

FOLDER = EXAMPLES / "text_to_sql"


def task(database: str, gold: str) -> Task:
    return Task(id="t", input={"database": database, "question": "?"}, expected=gold)
