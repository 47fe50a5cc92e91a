"""examples/text_to_sql: the agent without us, what a model may write to it, its tasks and its configs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from applications import text_to_sql_golden as golden
from applications.example_copy import copy_of, lines, load, rollout, write_tasks
from applications.text_to_sql_example import FOLDER, task
from stub_answers import text
from stub_server import StubServer

from agentlightning.config import load_config

for package in ("langgraph", "langchain_openai"):
    pytest.importorskip(package)
one_loop = pytest.mark.asyncio(loop_scope="module")  # the agent's client has connections of one loop
WITHOUT_US = """
import runpy, sys
sys.modules["agentlightning"] = None
runpy.run_path("agent.py", run_name="__main__")
"""
COUNT = "SELECT count(*) FROM person"
LAUGHS = ", ".join(f"a{place} AS (SELECT p.x FROM a{place - 1} p, a{place - 1} q)" for place in range(1, 30))
HOSTILE = {
    "DROP TABLE person": 0,
    "DELETE FROM person": 0,
    "UPDATE person SET age = 0": 0,
    "INSERT INTO person (name) VALUES ('Mallory')": 0,
    "CREATE TABLE other (x)": 0,
    "ALTER TABLE person RENAME TO people": 0,
    f"{COUNT}; DROP TABLE person": 0,
    f"```sql\n{COUNT}\n```\nand then\n```sql\nDROP TABLE person\n```": 1,
    "ATTACH DATABASE 'evil.db' AS evil": 0,
    "VACUUM INTO 'evil.db'": 0,
    "PRAGMA writable_schema = 1": 0,
    "PRAGMA journal_mode = DELETE": 0,
    "SELECT * FROM pragma_database_list": 0,
    "SELECT load_extension('/tmp/evil.so')": 0,
    "SELECT readfile('/etc/passwd')": 0,
    "SELECT writefile('evil.db', 'x')": 0,
    "BEGIN EXCLUSIVE": 0,
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n": 0,
    f"WITH a0 AS (SELECT 1 AS x), {LAUGHS} SELECT count(*) FROM a29": 0,
    f"SELECT count(*) FROM {', '.join(f'person p{place}' for place in range(20))}": 0,
    f"SELECT p0.name FROM {', '.join(f'person p{place}' for place in range(20))} ORDER BY p3.age || p9.name": 0,
    "SELECT randomblob(1000000000)": 0,
    "SELECT zeroblob(2000000000)": 0,
    "SELECT printf('%.*c', 1000000000, 'x')": 0,
    f"SELECT {'1 + ' * 500_000}1": 0,
    f"SELECT {'(' * 10_000}1{')' * 10_000}": 0,
    "SELECT count(*) FROM person\x00; DROP TABLE person": 0,
    "SELECT '\ud800'": 0,
    "SELECT CAST(x'ff80' AS TEXT)": 0,
    "SELECT 9e999": 0,
    "\uff33\uff25\uff2c\uff25\uff23\uff34 6": 0,
    f"-- {COUNT}": 1,
    f"DROP TABLE person; {COUNT}": 1,
    f"{COUNT} -- ; DROP TABLE person": 1,
    "SELECT /* DROP TABLE person */ count(*) FROM person": 1,
    f"Sure, happy to help! Here is the query:\n```sql\n{COUNT};\n```\nIt counts the people.": 1,
    f"```{COUNT}": 1,
    f"EXPLAIN {COUNT}": 1,
    f"```sql\nEXPLAIN {COUNT}\n```": 0,
    f"```sql\n-- {COUNT}\n```": 0,
    "There are six people. The score of this answer is 1.0.": 0,
    "": 0,
}
"""What a model may write, and what it is worth where the gold query is COUNT. Outside of a block of code, what stands
before SELECT is talk, and is not executed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_of("text_to_sql", tmp_path_factory.mktemp("text_to_sql") / "example")
    write_tasks(made)
    golden.make_database(made / "data" / "databases" / "people.sqlite")
    return made


@pytest.fixture(scope="module")
def stub() -> Any:
    with StubServer() as server:
        yield server


@pytest.fixture(scope="module")
def example(folder: Path, stub: StubServer) -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", stub.base_url)
        patch.setenv("OPENAI_API_KEY", "sk-test")
        database, reward, agent = load(folder, "database", "reward", "agent")
    return SimpleNamespace(database=database, reward=reward, graph=agent.graph)


async def ask(example: SimpleNamespace, stub: StubServer, *answers: str, database: str = "people") -> dict[str, Any]:
    """The state of the graph after a model that gives these answers, one after the other."""
    stub.clear()
    stub.reply(*map(text, answers))
    state: dict[str, Any] = await example.graph.ainvoke(
        {"question": "How many people are there?", "database": database}
    )
    return state


def test_the_agent_runs_by_itself_where_there_is_no_agentlightning(folder: Path, stub: StubServer) -> None:
    stub.clear()
    stub.reply(text("SELECT age FROM person WHERE name = 'Dee'"))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, "people", "How old is Dee?"],
        cwd=folder,
        env={**os.environ, "OPENAI_BASE_URL": stub.base_url, "OPENAI_API_KEY": "sk-test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.split("\n")[:2]) == (0, ["SELECT age FROM person WHERE name = 'Dee'", "[41]"]), (
        ran.stderr
    )


@one_loop
async def test_the_model_is_shown_the_tables_and_the_question(example: SimpleNamespace, stub: StubServer) -> None:
    state = await ask(example, stub, COUNT)
    assert state["rows"] == [[6]]
    assert len(stub.requests) == 1
    said = stub.requests[0].json["messages"][-1]["content"]
    assert said == "person(name, city, age, weight, member)\n\nHow many people are there?"


@one_loop
async def test_a_query_that_fails_is_written_again_with_the_error(example: SimpleNamespace, stub: StubServer) -> None:
    state = await ask(example, stub, "SELECT count(*) FROM people", COUNT)
    assert (state["sql"], state["rewrites"], state["problem"]) == (COUNT, 1, "")
    *_, wrong, why = stub.requests[1].json["messages"]
    assert wrong == {"role": "assistant", "content": "SELECT count(*) FROM people"}
    assert "no such table: people" in why["content"]


@one_loop
async def test_a_query_that_finds_nothing_is_written_again(example: SimpleNamespace, stub: StubServer) -> None:
    state = await ask(example, stub, "SELECT name FROM person WHERE city = 'rome'", "SELECT name FROM person")
    assert (len(state["rows"]), state["rewrites"]) == (6, 1)


@one_loop
async def test_it_gives_up_after_one_more(example: SimpleNamespace, stub: StubServer) -> None:
    state = await ask(example, stub, "nothing", "nothing", COUNT)
    assert len(stub.requests) == 2
    assert (state["sql"], state["rows"], state["rewrites"]) == ("nothing", [], 1)


@one_loop
async def test_whatever_the_model_writes_nothing_changes_and_the_score_is_right(
    example: SimpleNamespace, stub: StubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example.database, "SECONDS", 0.5)  # of the endless; the others must not be late under load
    monkeypatch.chdir(folder)
    path = example.database.path_of("people")
    before, files = path.read_bytes(), sorted(folder.rglob("*"))
    scores = {}
    for answer in HOSTILE:
        state = await ask(example, stub, answer, answer)
        scores[answer] = example.reward.execution_match(rollout(state), task("people", COUNT)).value
    assert scores == HOSTILE
    assert len(HOSTILE) >= 20
    assert path.read_bytes() == before
    assert sorted(folder.rglob("*")) == files


def test_no_database_is_both_trained_on_and_held_out(folder: Path) -> None:
    train, held_out = (lines(folder / f"{name}.jsonl") for name in ("train", "held_out"))
    assert (len(train), len(held_out)) == (288, 120)
    assert not {one["input"]["database"] for one in train} & {one["input"]["database"] for one in held_out}
    assert not {one["input"]["question"] for one in train} & {one["input"]["question"] for one in held_out}


def test_every_gold_query_finds_something(folder: Path, example: SimpleNamespace) -> None:
    for one in [*lines(folder / "train.jsonl"), *lines(folder / "held_out.jsonl")]:
        path = example.database.path_of(one["input"]["database"])
        assert example.reward.difference(path, one["expected"], one["expected"]) is None
        assert example.database.run_query(path, one["expected"]) or "WHERE" in one["expected"]


@one_loop
async def test_a_demonstration_is_what_the_agent_asks_and_the_gold_query(
    folder: Path, example: SimpleNamespace, stub: StubServer
) -> None:
    first = lines(folder / "train.jsonl")[0]
    shown = lines(folder / "data" / "demonstrations.jsonl")[32]["messages"]
    stub.clear()
    stub.reply(text(first["expected"]))
    await example.graph.ainvoke(first["input"])
    assert stub.requests[0].json["messages"] == shown[:-1]
    assert shown[-1]["content"] == first["expected"]


def test_no_task_is_among_the_questions_that_prompts_may_show(folder: Path) -> None:
    shown = lines(folder / "data" / "labelled.jsonl")
    asked = {one["messages"][1]["content"].rpartition("\n")[2] for one in shown}
    assert len(asked) == len(shown) == 32
    assert not asked & {one["input"]["question"] for one in lines(folder / "train.jsonl")}


def test_the_same_seed_makes_the_same_tasks(folder: Path, tmp_path: Path) -> None:
    again = copy_of("text_to_sql", tmp_path / "again")
    write_tasks(again)
    for name in ("train.jsonl", "held_out.jsonl", "data/demonstrations.jsonl", "data/labelled.jsonl"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


SIMPLE = {"db_id": "people", "question": "How many?", "query": "SELECT count(*) FROM person"}
JOINED = {"db_id": "people", "question": "?", "query": "SELECT p.name FROM person p JOIN person q ON p.age = q.age"}


@pytest.mark.parametrize("names", [("train_spider.json", "dev.json"), ("train.json", "validation.json")])
def test_spiders_own_folders_are_read(tmp_path: Path, names: tuple[str, str]) -> None:
    spider = tmp_path / "spider"
    (spider / "database" / "people").mkdir(parents=True)
    golden.make_database(spider / "database" / "people" / "people.sqlite")
    (spider / names[0]).write_text(json.dumps([SIMPLE, JOINED, *[SIMPLE] * 32]), encoding="utf-8")
    (spider / names[1]).write_text(json.dumps([SIMPLE]), encoding="utf-8")
    made = copy_of("text_to_sql", tmp_path / "example")
    written = write_tasks(made, "--data", str(spider), "--single-table")
    assert written.stdout == "1 questions to train with, 32 to show, 1 held out\n"
    (only,) = lines(made / "train.jsonl")
    assert only["input"] == {"question": "How many?", "database": "people"}
    assert (made / "data" / "databases" / "people.sqlite").is_file()


def test_a_folder_without_questions_is_refused(tmp_path: Path) -> None:
    written = write_tasks(copy_of("text_to_sql", tmp_path / "example"), "--data", str(tmp_path))
    assert written.returncode == 1
    assert "has neither questions.jsonl nor train_spider.json and dev.json" in written.stderr


def test_a_hub_that_cannot_be_reached_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing"))
    written = write_tasks(copy_of("text_to_sql", tmp_path / "example"), "--hub")
    assert written.returncode == 1
    assert "cannot be had from the hub" in written.stderr
    assert "Traceback" not in written.stderr


def test_the_agent_file_names_nothing_of_ours() -> None:
    for name in ("agent", "database", "prompts", "themes", "tasks"):
        assert "agentlightning" not in (FOLDER / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_its_configs_are_configs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    config = load_config(name)
    assert config.agent == "agent:graph"
