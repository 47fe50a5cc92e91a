"""examples/mathematics: the agent without us, what a model may have it calculate, its tasks and its configs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from applications.example_copy import copy_of, lines, load, write_tasks
from applications.mathematics_example import FOLDER, numeric_match
from stub_answers import text, tool_call
from stub_server import StubServer

from agentlightning.config import load_config

for package in ("autogen_agentchat", "autogen_ext"):
    pytest.importorskip(package)
pytestmark = pytest.mark.filterwarnings("ignore:Resolved model mismatch")
one_loop = pytest.mark.asyncio(loop_scope="module")  # the agent's client has connections of one loop
WITHOUT_US = """
import runpy, sys
sys.modules["agentlightning"] = None
runpy.run_path("agent.py", run_name="__main__")
"""
MEBIBYTES = 2**20

CALCULATED = {
    "48/2": "24",
    "48 / 2": "24",
    "0.1 + 0.2": "0.3",
    "10 / 3": "3.333333333",
    "(3 + 4) * -2": "-14",
    "1,200 * 3": "3600",
    "1,234,567 + 1": "1234568",
    "2 ** 10": "1024",
    "2 ** -1": "0.5",
    ".4 * 1000": "400",
    "5.": "5",
    "109200000 * 1": "109200000",
    "7 - 7": "0",
    f"{'(' * 90}1{')' * 90}": "1",
    f"{'-' * 190}1": "1",
}
HOSTILE = [
    "",
    " ",
    "()",
    "__import__('os').system('touch harmed')",
    "open('harmed', 'w')",
    "9**9**9",
    "9 ** 9 ** 9 ** 9",
    "2 ** 65",
    "(10 ** 15) ** 64",
    "(10 ** 15) ** 63.5",
    "0 ** -1",
    "1/0",
    "(-1) ** 0.5",
    "10**-10**10",
    "'a'*10**9",
    "[0] * 10**9",
    f"{'(' * 100_000}1{')' * 100_000}",
    f"{'-' * 100_000}1",
    "1+" * 99 + "1" + "*9" * 99,
    "1e999",
    "1e308 * 10",
    "9" * 199,
    "nan",
    "inf",
    "lambda: 1",
    "[x for x in (1,) * 10**9]",
    "(1).__class__",
    "1 .real",
    'f"{9**9**9}"',
    "７ + ２",
    "٣ + ٤",
    "3 × 4",
    "9" * 1_000_000,
    "1+" * 500_000 + "1",
    "3j * 2",
    "True + 1",
    "None",
    "(x := 5)",
    "1 if 1 else 2",
    "1 < 2",
    "7 // 2",
    "7 % 2",
    "1 << 40",
    "~1",
    "1\x00 + 1",
    "1\n+ 1",
    "# 1",
    "0x48",
    "1_000",
    "007",
    "1,2",
    "1,0000",
    "2(3)",
    "3 + 4 = 7",
    "\ud800",
]
"""What a model may write in the place of an expression, none of which has a value."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_of("mathematics", tmp_path_factory.mktemp("mathematics") / "example")
    written = write_tasks(made)
    assert written.returncode == 0, written.stderr
    return made


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture(scope="module")
def example(stub: StubServer) -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", stub.base_url)
        patch.setenv("OPENAI_API_KEY", "sk-test")
        agent, calculator, tasks = load(FOLDER, "agent", "calculator", "tasks")
    return SimpleNamespace(solver=agent.solver, calculator=calculator, tasks=tasks)


async def ask(example: SimpleNamespace, stub: StubServer, question: str, *answers: Any) -> list[Any]:
    """The messages of the agent, whose model gives these answers, one after the other."""
    stub.clear()
    stub.reply(*answers)
    await example.solver.on_reset(None)
    result = await example.solver.run(task=question)
    return list(result.messages)


def test_the_agent_runs_by_itself_where_there_is_no_agentlightning(folder: Path, stub: StubServer) -> None:
    stub.clear()
    stub.reply(tool_call("calculator", expression="48 / 2"), text("The answer is 24."))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, "What", "is", "half", "of", "48?"],
        cwd=folder,
        env={**os.environ, "OPENAI_BASE_URL": stub.base_url, "OPENAI_API_KEY": "sk-test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "The answer is 24." in ran.stdout
    assert [message["content"] for message in stub.requests[1].json["messages"]][1:] == [
        "What is half of 48?",
        None,
        "24",
    ]


def test_the_agents_files_name_nothing_of_ours() -> None:
    for name in ("agent", "calculator", "problems", "tasks"):
        assert "agentlightning" not in (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_the_readme_shows_the_agent_as_it_is() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert shown in (FOLDER / "agent.py").read_text(encoding="utf-8")


@one_loop
async def test_a_demonstration_is_what_the_agent_asks_and_is_told(
    example: SimpleNamespace, stub: StubServer, folder: Path
) -> None:
    shown = next(one for one in lines(folder / "data" / "demonstrations.jsonl") if len(one["messages"]) == 7)
    system, question, first, _, second, _, last = shown["messages"]
    calls = [json.loads(one["tool_calls"][0]["function"]["arguments"]) for one in (first, second)]
    answers = [tool_call("calculator", id=f"call_{place}", **call) for place, call in enumerate(calls)]
    messages = await ask(example, stub, question["content"], *answers, text(last["content"]))
    asked = stub.requests[-1].json
    assert [{key: value for key, value in one.items() if key != "name"} for one in asked["messages"]] == [
        system,
        *shown["messages"][1:-1],
    ]
    assert asked["tools"] == shown["tools"]
    assert messages[-1].content == last["content"]


@one_loop
async def test_a_calculation_that_failed_is_told_to_the_model(example: SimpleNamespace, stub: StubServer) -> None:
    messages = await ask(example, stub, "?", tool_call("calculator", expression="1/0"), text("The answer is 0."))
    assert stub.requests[1].json["messages"][-1]["content"] == "division by zero"
    assert messages[-1].content == "The answer is 0."


@one_loop
async def test_it_stops_after_six_calculations(example: SimpleNamespace, stub: StubServer) -> None:
    await ask(example, stub, "?", *(tool_call("calculator", expression="1 + 1") for _ in range(9)))
    assert len(stub.requests) == 6


@pytest.mark.parametrize("expression", CALCULATED, ids=lambda expression: expression[:20])
def test_it_calculates(example: SimpleNamespace, expression: str) -> None:
    assert example.calculator.calculate(expression) == CALCULATED[expression]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("expression", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_is_no_arithmetic_is_refused(example: SimpleNamespace, expression: str) -> None:
    with pytest.raises(ValueError, match=r"^(expected|this is no arithmetic|division by zero)"):
        example.calculator.calculate(expression)


@one_loop
@pytest.mark.timeout(60)
async def test_whatever_the_model_calculates_no_harm_is_done_and_the_answer_counts(
    example: SimpleNamespace, stub: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = [one for one in HOSTILE if len(one) < 1000][:32]
    tracemalloc.start()
    for expression in hostile:
        answers = tool_call("calculator", expression=expression), text("The answer is 72.")
        messages = await ask(example, stub, "?", *answers)
        told = stub.requests[1].json["messages"][-1]
        assert (told["role"], len(told["content"]) < 200) == ("tool", True)
        assert numeric_match(messages[-1].content, "72") == 1
    assert len(hostile) >= 20
    assert tracemalloc.get_traced_memory()[1] < 64 * MEBIBYTES
    tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


def test_each_problem_stands_in_one_file_and_its_calculations_give_its_answer(folder: Path) -> None:
    train, held_out = (lines(folder / f"{name}.jsonl") for name in ("train", "held_out"))
    demonstrations, labelled = (lines(folder / "data" / f"{name}.jsonl") for name in ("demonstrations", "labelled"))
    assert (len(train), len(held_out), len(labelled)) == (768, 120, 64)
    questions = [one["input"] for one in train + held_out] + [one["messages"][1]["content"] for one in labelled]
    assert len(set(questions)) == len(questions)
    assert [one["messages"][1]["content"] for one in demonstrations] == [one["input"] for one in train]
    for one in train + held_out:
        assert one["results"][-1] == one["expected"]
        assert float(one["expected"]) == int(one["expected"]) > 0
    for one, shown in zip(train, demonstrations, strict=True):
        assert [it["content"] for it in shown["messages"] if it["role"] == "tool"] == one["results"]


def test_the_same_seed_makes_the_same_tasks(folder: Path, tmp_path: Path) -> None:
    again = copy_of("mathematics", tmp_path / "again")
    write_tasks(again)
    for name in ("train.jsonl", "held_out.jsonl", "data/demonstrations.jsonl", "data/labelled.jsonl"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


GSM8K = [
    ("Tom sold 48 clips, then half as many. How many?", "48/2=<<48/2=24>>24\n48+24=<<48+24=72>>72\n#### 72"),
    ("A mark is missing.", "48/2=<<48/2=24>>24\n48+24=72\n#### 72"),
    ("A mark is wrong.", "48/2=<<48/2=25>>25\n#### 25"),
    ("There is no mark.", "#### 5"),
    ("Thousands.", "1200*2=<<1200*2=2400>>2400\n#### 2,400"),
    ("Three steps.", "<<1+1=2>>2 <<2+2=4>>4 <<4+4=8>>8\n#### 8"),
]


def test_problems_of_gsm8k_become_tasks_where_their_marks_lead_to_the_answer(
    example: SimpleNamespace, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        rows = [json.dumps({"question": question, "answer": answer}) for question, answer in GSM8K]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    problems = example.tasks.read(str(tmp_path), "train")
    assert [one.answer for one in problems] == ["72", "72", "25", "5", "2400", "8"]
    assert [example.tasks.is_solved(one) for one in problems[:3]] == [True, False, False]

    made = copy_of("mathematics", tmp_path / "example")
    assert write_tasks(made, "--data", str(tmp_path), "--labelled", "1").returncode == 0
    used = [one["input"] for one in lines(made / "train.jsonl")]
    shown = [one["messages"][1]["content"] for one in lines(made / "data" / "labelled.jsonl")]
    assert sorted(used + shown) == [GSM8K[4][0], GSM8K[0][0]]
    held_out = lines(made / "held_out.jsonl")
    assert [one["input"] for one in held_out] == [GSM8K[place][0] for place in (0, 1, 2, 4)]
    assert held_out[0]["results"] == ["24", "72"]


def test_without_the_package_datasets_the_hub_is_refused_with_what_to_do(tmp_path: Path) -> None:
    made = copy_of("mathematics", tmp_path / "example")
    (made / "datasets.py").write_text("raise ImportError('not installed')", encoding="utf-8")
    written = write_tasks(made, "--data")
    assert written.returncode == 1
    assert "pip install datasets" in written.stderr


@pytest.mark.parametrize("name", sorted({path.name for path in FOLDER.glob("*.yaml")} - {"curves.yaml"}))
def test_its_configs_are_configs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    assert load_config(name).agent == "agent:solver"
