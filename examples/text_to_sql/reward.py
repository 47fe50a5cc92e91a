"""What a query is worth: whether it finds what the gold query finds, and what was good on the way."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from database import QueryError, extract_sql, path_of, run_query

from agentlightning import Reward

EXECUTES, FINDS, REWRITTEN = 0.1, 0.1, -0.1
"""The rewards of a step: its query can be executed, it finds something, and it is one that had to be written again."""


def execution_match(rollout, task):
    """1 where the last query finds what the gold query finds, else 0, with the reason."""
    state = rollout.output if isinstance(rollout.output, dict) else {}
    path = path_of(task.input["database"])
    reason = difference(path, str(state.get("sql", "")), task.expected)
    return Reward(name="execution_match", value=reason is None, reason=reason)


def difference(path: Path, sql: str, gold: str) -> str | None:
    """Why a query does not answer what the gold query answers; None where it does. Both run within the same limits."""
    expected = run_query(path, as_sqlite(gold))
    try:
        found = run_query(path, as_sqlite(sql))
    except QueryError as error:
        return str(error)
    if same_result(expected, found, ordered="order by" in gold.lower()):
        return None
    return f"found {shown(found)}, expected {shown(expected)}"


def as_sqlite(sql: str) -> str:
    """Spider's queries are split into tokens, comparisons too; its evaluator puts those together, and so does this."""
    return sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")


def shown(rows: list[tuple]) -> str:
    return f"{len(rows)} rows {str(rows[:3])[:200]}"


def same_result(expected: list[tuple], found: list[tuple], ordered: bool) -> bool:
    """Whether both are the same rows as often, in the same order where that is asked for, with columns in any order."""
    if not expected and not found:
        return True
    if len(expected) != len(found) or len(expected[0]) != len(found[0]):
        return False
    as_rows = list if ordered else Counter
    return matches([], expected, list(zip(*found, strict=True)), as_rows)


def matches(chosen: list[Sequence], expected: list[tuple], left: list[Sequence], as_rows: type) -> bool:
    """Whether the columns that are left continue those that are chosen, so that all together are the expected rows."""
    width = len(chosen)
    if chosen and as_rows(zip(*chosen, strict=True)) != as_rows(row[:width] for row in expected):
        return False
    return not left or any(
        matches([*chosen, column], expected, left[:place] + left[place + 1 :], as_rows)
        for place, column in enumerate(left)
        if column not in left[:place]
    )


def steps(rollout, task, spans):
    """What each query was worth by itself, as a reward of the call that wrote it."""
    calls = [span for span in spans if span.kind == "llm" and span.generation and span.generation.response]
    return [reward for call in calls for reward in rewards_of(call, task.input["database"])]


def rewards_of(call, database: str) -> list[Reward]:
    values = {"rewritten": REWRITTEN} if call.agent == "rewrite" else {}
    try:
        rows = run_query(path_of(database), extract_sql(call.generation.response.get("content") or ""))
        values |= {"executes": EXECUTES, "finds": FINDS if rows else 0.0}
    except QueryError:
        values |= {"executes": 0.0}
    return [Reward(name=name, value=value, span_id=call.id) for name, value in values.items()]
