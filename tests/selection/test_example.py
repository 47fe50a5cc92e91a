"""The example `model_choice`: its data, its endpoint and its agent, on a few questions."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from agentlightning.config import load_config
from agentlightning_selection.algorithm import Selection

EXAMPLE = Path(__file__).parents[2] / "examples" / "model_choice"
ROUTED = """
import asyncio, sys, threading, time
from pathlib import Path
from endpoint import serve, table_of
from agentlightning import Trainer
from agentlightning.config import load_config

table = table_of(Path("data/answers.jsonl"))
threading.Thread(target=lambda: asyncio.run(serve(table, int(sys.argv[1]))), daemon=True).start()
time.sleep(0.5)
result = Trainer.from_config(load_config("small.yaml")).fit()
print([evaluation.mean for evaluation in result.evaluations], result.results["front"])
"""


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy, prepared from questions of two kinds: the cheap model can do sums, and the dear one everything."""
    folder = tmp_path / "example"
    copytree(EXAMPLE, folder, ignore=ignore_patterns("data", "runs", "__pycache__"))
    source = tmp_path / "recorded"
    source.mkdir()
    for name, start, stop in (("train", 0, 40), ("test", 30, 50)):
        rows = [
            {"question": f"{kind} {number}", "scores": {"cheap": float(kind == "sum"), "dear": 1.0}}
            for number in range(start, stop)
            for kind in ("sum", "city")
        ]
        (source / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subprocess.run([sys.executable, "prepare.py", str(source)], cwd=folder, check=True, capture_output=True)
    return folder


def test_every_question_is_answered_as_in_the_file_that_it_came_from(example: Path) -> None:
    held_out = [json.loads(line)["input"] for line in (example / "data" / "held_out.jsonl").open()]
    answers = [json.loads(line)["question"] for line in (example / "data" / "answers.jsonl").open()]
    assert len(answers) == len(set(answers)) == 120
    assert [question for question in held_out if question.endswith(" ")] == [
        f"{kind} {number} " for number in range(30, 40) for kind in ("sum", "city")
    ]


def test_its_config_is_one() -> None:
    section = dict(load_config(EXAMPLE / "config.yaml").algorithm)
    assert section.pop("name") == "selection"
    assert len(Selection.from_section(section).config.candidates) == 9


def test_the_cheap_model_gets_the_questions_that_it_can_answer(example: Path, free_port: int) -> None:
    candidates = "\n".join(
        f'    - {{model: {model}, base_url: "http://127.0.0.1:{free_port}/v1", input_price: {price}}}'
        for model, price in (("dear", 10), ("cheap", 1))
    )
    text = (example / "config.yaml").read_text().partition("  features:")[0]
    (example / "kind.py").write_text("def of(text):\n    return [text.startswith('sum'), text.startswith('city')]\n")
    (example / "small.yaml").write_text(
        f"{text}  features: kind:of\n  cost_limit: 0.006\n  candidates:\n{candidates}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", ROUTED, str(free_port)], cwd=example, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.startswith("[1.0, 1.0]"), ran.stdout
    assert "chosen by task 1.000 at $0.0055" in ran.stdout
