"""examples/text_to_sql: what a query is worth, as Spider's evaluator says, and what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from applications import text_to_sql_golden as golden
from applications.example_copy import copy_of, load, rollout
from applications.text_to_sql_example import task

from agentlightning.records import Generation, Span

EVALUATOR = json.loads(golden.GOLDEN.read_text(encoding="utf-8"))
PAIRS = [
    (gold, predicted, keeps == "1", drops == "1")
    for gold, verdicts in EVALUATOR["gold"].items()
    for predicted, keeps, drops in zip(
        EVALUATOR["predicted"], verdicts["keep_distinct"], verdicts["without_distinct"], strict=True
    )
]
NO_QUERY = "-- nothing"
"""No query at all: the evaluator takes it for one that finds nothing."""
SAME_NUMBERS = {
    frozenset({"SELECT weight, age FROM person WHERE name = 'Bob'", "SELECT 2, 25"}),
    frozenset({"SELECT 1.5, 1 UNION SELECT 2.5, 2 ORDER BY 1", "SELECT 1.5, 1.0 UNION SELECT 2.5, 2.0 ORDER BY 1"}),
}
"""2 and 2.0 are equal, and are so to the evaluator, but not always in a row with others: it sorts a row by its text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_of("text_to_sql", tmp_path_factory.mktemp("text_to_sql") / "example")
    (made / "data" / "databases").mkdir(parents=True)
    golden.make_database(made / "data" / "databases" / "people.sqlite")
    return made


@pytest.fixture(scope="module")
def example(folder: Path) -> SimpleNamespace:
    database, reward = load(folder, "database", "reward")
    return SimpleNamespace(database=database, reward=reward, path=database.path_of("people"))


def test_the_reward_is_the_public_evaluators_verdict(example: SimpleNamespace) -> None:
    differing = {
        (gold, predicted): said
        for gold, predicted, said, _ in PAIRS
        if said is not (example.reward.difference(example.path, predicted, gold) is None)
    }
    explained = {pair: said for pair, said in differing.items() if NO_QUERY in pair or frozenset(pair) in SAME_NUMBERS}
    assert len(PAIRS) > 4000
    assert differing == explained
    assert {said for pair, said in differing.items() if NO_QUERY in pair} == {True}
    assert {said for pair, said in differing.items() if NO_QUERY not in pair} == {False}


def test_the_evaluators_default_only_drops_distinct_and_all_but_the_first_statement() -> None:
    differing = [(gold, predicted) for gold, predicted, keeps, drops in PAIRS if keeps is not drops]
    assert differing
    assert all("DISTINCT" in gold + predicted or "; SELECT" in predicted for gold, predicted in differing)


@pytest.mark.parametrize(
    ("predicted", "value"),
    [("SELECT name FROM person ORDER BY name DESC", 0.0), ("SELECT person.name FROM person ORDER BY 1", 1.0)],
)
def test_order_counts_where_the_gold_query_has_one(example: SimpleNamespace, predicted: str, value: float) -> None:
    scored = example.reward.execution_match(
        rollout({"sql": predicted}), task("people", "SELECT name FROM person ORDER BY name")
    )
    assert float(scored.value) == value


def test_a_reason_says_what_was_found(example: SimpleNamespace) -> None:
    scored = example.reward.execution_match(rollout({"sql": "SELECT 5"}), task("people", "SELECT count(*) FROM person"))
    assert scored.reason == "found 1 rows [(5,)], expected 1 rows [(6,)]"


@pytest.mark.parametrize("output", [None, "SELECT count(*) FROM person", {}, {"sql": None}, [1]])
def test_an_agent_that_came_to_no_query_is_worth_nothing(example: SimpleNamespace, output: object) -> None:
    scored = example.reward.execution_match(rollout(output), task("people", "SELECT count(*) FROM person"))
    assert scored.value == 0.0


def test_a_gold_query_that_fails_is_an_error_and_no_score(example: SimpleNamespace) -> None:
    with pytest.raises(example.database.QueryError, match="no such table: nobody"):
        example.reward.execution_match(rollout({"sql": "SELECT 1"}), task("people", "SELECT * FROM nobody"))


def test_columns_that_look_alike_by_themselves_are_told_apart_together(example: SimpleNamespace) -> None:
    rows, crossed = [(1, "a"), (2, "b")], [("a", 2), ("b", 1)]
    assert example.reward.same_result(rows, [("b", 2), ("a", 1)], ordered=False)
    assert not example.reward.same_result(rows, crossed, ordered=False)


def test_twenty_columns_that_are_all_the_same_are_compared_at_once(example: SimpleNamespace) -> None:
    rows = [(None,) * 20 + (number,) for number in range(50)]
    assert not example.reward.same_result(rows, [(None,) * 20 + (number // 2,) for number in range(50)], ordered=False)


def test_steps_are_rewarded_by_what_their_own_query_does(example: SimpleNamespace) -> None:
    calls = [
        Span(
            rollout_id="r",
            kind="llm",
            name="chat",
            agent=agent,
            generation=Generation(response={"role": "assistant", "content": said}),
        )
        for agent, said in (
            ("write", "SELECT nobody FROM person"),
            ("rewrite", "SELECT name FROM person WHERE age > 100"),
            ("rewrite", "```sql\nSELECT name FROM person\n```"),
        )
    ]
    rewards = example.reward.steps(rollout({}), task("people", "SELECT 1"), calls)
    by_call = [{it.name: it.value for it in rewards if it.span_id == call.id} for call in calls]
    assert by_call == [
        {"executes": 0.0},
        {"rewritten": -0.1, "executes": 0.1, "finds": 0.0},
        {"rewritten": -0.1, "executes": 0.1, "finds": 0.1},
    ]
    assert all(it.step for it in rewards)


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        ("Sure! Here it is:\n```sql\nSELECT 1;\n```\nIt counts.", "SELECT 1;"),
        ("```\nselect 1\n```", "select 1"),
        ("```sql\nSELECT 1", "SELECT 1"),
        ("The query is SELECT 1\n\nIt counts.", "SELECT 1"),
        ("DROP TABLE person", "DROP TABLE person"),
        ("```", ""),
        ("", ""),
    ],
)
def test_the_query_is_found_in_what_a_model_says(example: SimpleNamespace, answer: str, query: str) -> None:
    assert example.database.extract_sql(answer) == query


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'with' AS with_it",
        'SELECT "with" FROM (SELECT 1 AS "with")',
        "SELECT 1 -- with\n",
        "SELECT /* with */ 1",
        "SELECT [with] FROM (SELECT 1 AS [with])",
    ],
)
def test_with_is_refused_as_a_keyword_alone(example: SimpleNamespace, sql: str) -> None:
    assert len(example.database.run_query(example.path, sql)) == 1


def test_text_that_is_no_utf_8_is_read(example: SimpleNamespace) -> None:
    assert example.database.run_query(example.path, "SELECT CAST(x'41ff42' AS TEXT)") == [("AB",)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT p.name FROM person p, person q, person r, person s, person t, person u",
        "SELECT group_concat(p.name) FROM person p, person q, person r, person s, person t",
        f"SELECT replace(replace('{'a' * 200}', 'a', '{'a' * 200}'), 'a', 'aa')",
    ],
)
def test_what_is_too_large_is_refused(example: SimpleNamespace, sql: str) -> None:
    with pytest.raises(example.database.QueryError, match=r"too big|more than"):
        example.database.run_query(example.path, sql)
