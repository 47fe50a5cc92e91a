"""SQL that does not parse, and SQL that found nothing."""

from __future__ import annotations

from typing import Any

import pytest
from intermediate.spans import Recording, call

from agentlightning.errors import ConfigError
from agentlightning_intermediate.signals.sql import check_sqlglot

pytest.importorskip("sqlglot")

GOOD = [
    "SELECT name FROM singer WHERE age > 20",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a; SELECT 2",
    "(SELECT 1) UNION (SELECT 2)",
    "INSERT INTO t (a) VALUES (1)",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "CREATE TABLE t (a INT)",
    "SELECT a -- a comment\nFROM t",
    "PRAGMA table_info(t)",
]
BAD = ["SELECT name FORM singer WHERE", "SELECT (1", "how many singers", "the answer is 4", "", "'unfinished"]


def asked(statement: Any, name: str = "sql_db_query", argument: str = "query") -> Recording:
    run = Recording()
    run.answer("", call(name, {argument: statement}, "c1"))
    return run


@pytest.mark.parametrize("statement", GOOD)
def test_sql_that_parses(statement: str) -> None:
    assert asked(statement).found("sql_invalid") == []


@pytest.mark.parametrize("statement", BAD)
def test_sql_that_does_not(statement: str) -> None:
    (found,) = asked(statement).found("sql_invalid")

    assert found.answer.index == 0
    assert found.reason.startswith("the argument of sql_db_query is not valid SQL: ")


def test_only_the_tools_that_take_sql_are_looked_at_and_only_what_is_sql() -> None:
    assert asked("not sql at all", name="search").found("sql_invalid") == []
    assert asked("a, b", name="sql_db_schema", argument="table_names").found("sql_invalid") == []
    assert asked(7).found("sql_invalid") == []
    assert len(asked("not sql at all", name="ask").found("sql_invalid", sql_tools=["ask"])) == 1
    run = asked("not sql at all", argument="text")
    assert (run.found("sql_invalid"), len(run.found("sql_invalid", sql_argument="text"))) == ([], 1)


def test_a_tool_whose_arguments_are_a_text_takes_the_whole_of_it() -> None:
    run = Recording()
    run.answer("", {"id": "c1", "type": "custom", "custom": {"name": "run_sql", "input": "SELECT FROM WHERE"}})

    assert run.blamed("sql_invalid") == [0]


def test_answers_that_are_sql_are_read_alone_or_in_a_code_block() -> None:
    run = Recording()
    run.answer("SELECT 1", agent="Writer")
    run.answer("Here it is:\n```sql\nSELECT 1\nFROM t\n```\nThere.", agent="writer")
    run.answer("```\nSELECT (1\n```", agent="writer")
    run.answer("SELECT (1", agent="other")

    assert run.blamed("sql_invalid") == []
    assert run.blamed("sql_invalid", sql_agents=["writer"]) == [2]


def test_a_dialect_says_what_is_sql() -> None:
    statement = "SELECT `a` FROM `t` LIMIT 1, 2"

    assert asked(statement).found("sql_invalid", sql_dialect="mysql") == []
    assert len(asked(statement).found("sql_invalid", sql_dialect="postgres")) == 1


def test_a_dialect_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="sql_dialect: sqlglot does not know it: Unknown dialect 'kobol'"):
        check_sqlglot("kobol")


@pytest.mark.parametrize("statement", ["SELECT " + "(" * 5000, "SELECT 1" + ", 1" * 100_000, "\x00\ud800"])
def test_what_is_too_long_or_too_deep_to_be_read_ends_nothing(statement: str) -> None:
    assert len(asked(statement).found("sql_invalid")) <= 1


@pytest.mark.parametrize(
    ("result", "count"), [("", 1), ("[]", 1), ([], 1), ({"columns": ["a"], "rows": []}, 1), ("[(0,)]", 0), ([[0]], 0)]
)
def test_sql_that_returned_nothing(result: Any, count: int) -> None:
    run = asked("SELECT a FROM t")
    run.tool("sql_db_query", id="c1", arguments='{"query": "SELECT a FROM t"}', result=result)

    assert run.blamed("sql_empty") == [0] * count


def test_a_failure_an_unknown_result_or_another_tool_is_no_empty_result() -> None:
    run = asked("SELECT a FROM t")
    arguments = {"query": "SELECT a FROM t"}
    run.tool("sql_db_query", id="c1", arguments=arguments, result="", fails="no such table")
    run.tool("sql_db_query", id="c1", arguments=arguments)
    run.tool("sql_db_list_tables", id="c1", arguments={}, result="")
    run.tool("search", id="c1", arguments=arguments, result="")

    assert run.found("sql_empty") == []
