"""Writes the tasks: ``python tasks.py`` those of problems.py, ``python tasks.py --data FOLDER`` those of GSM8K.

Either makes train.jsonl and held_out.jsonl; data/demonstrations.jsonl, the training problems solved with the
calculator (for ``sft``); and data/labelled.jsonl, other problems solved so (for ``few_shot``).
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from calculator import calculate
from problems import Problem, problems

HERE = Path(__file__).parent
HUB = "openai/gsm8k"
MARK = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
TRAIN, HELD_OUT = 768, 120
"""How many problems are made from a seed."""

SYSTEM = "Solve the problem step by step with the calculator. Then say: The answer is N."
CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Works out an arithmetic expression, such as (3 + 4) * 2.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"description": "expression", "title": "Expression", "type": "string"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        "strict": False,
    },
}
"""The agent's instructions, and its tool as AutoGen shows it to the model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="?", const=HUB, help=f"GSM8K: a folder of its files; without one, {HUB}")
    parser.add_argument("--steps", type=int, default=2, help="calculations in the longest problem of GSM8K")
    parser.add_argument("--labelled", type=int, default=64, help="training problems that are set apart for few_shot")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.data is None:
        made = problems(arguments.labelled + TRAIN + HELD_OUT, arguments.seed)
        write(made[:-HELD_OUT], made[-HELD_OUT:], arguments.labelled)
        return
    train, test = (read(arguments.data, split) for split in ("train", "test"))
    solved = [one for one in train if 1 <= len(one.calculations) <= arguments.steps and is_solved(one)]
    random.Random(arguments.seed).shuffle(solved)
    held_out = [one for one in test if 1 <= len(one.calculations) <= arguments.steps]
    write(solved, held_out, arguments.labelled)


def read(source: str, split: str) -> list[Problem]:
    """The problems of GSM8K, from a folder with its files or, for `HUB`, from the Hugging Face hub."""
    if source != HUB:
        return [parse(json.loads(line)) for line in (Path(source) / f"{split}.jsonl").read_text("utf-8").splitlines()]
    try:
        from datasets import load_dataset
    except ImportError:
        sys.exit(f"{HUB} is read by the package datasets: pip install datasets, or --data FOLDER")
    return [parse(row) for row in load_dataset(HUB, "main", split=split)]


def parse(row: dict[str, str]) -> Problem:
    """A row of GSM8K, whose solution marks each calculation, ``<<48/2=24>>``, and ends in ``#### 72``."""
    solution, answer = row["answer"].rsplit("####", 1)
    return Problem(row["question"], MARK.findall(solution), answer.strip().replace(",", ""))


def is_solved(problem: Problem) -> bool:
    """Whether its calculations are right, and the last one gives its answer: a solution may leave out marks."""
    try:
        values = [float(calculate(expression)) for expression, _ in problem.calculations]
    except ValueError:
        return False
    return values == [float(result) for _, result in problem.calculations] and values[-1] == float(problem.answer)


def write(train: list[Problem], held_out: list[Problem], count: int) -> None:
    """The files; the first ``count`` problems of ``train`` are labelled."""
    (HERE / "data").mkdir(exist_ok=True)
    labelled, train = train[:count], train[count:]
    write_lines("train.jsonl", [task(f"train-{place}", one) for place, one in enumerate(train)])
    write_lines("held_out.jsonl", [task(f"held_out-{place}", one) for place, one in enumerate(held_out)])
    write_lines("data/demonstrations.jsonl", map(solve, train))
    write_lines("data/labelled.jsonl", map(solve, labelled))


def write_lines(name: str, rows: Iterable[dict[str, Any]]) -> None:
    (HERE / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def task(id: str, problem: Problem) -> dict[str, Any]:
    results = [calculate(result) for _, result in problem.calculations]
    return {"id": id, "input": problem.question, "expected": problem.answer, "results": results}


def solve(problem: Problem) -> dict[str, Any]:
    """The conversation in which the agent solves a problem: a call of the calculator for each calculation."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": problem.question}]
    for place, (expression, _) in enumerate(problem.calculations):
        arguments = json.dumps({"expression": expression})
        call = {"id": f"call_{place}", "type": "function", "function": {"name": "calculator", "arguments": arguments}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "content": calculate(expression), "tool_call_id": call["id"]})
    messages.append({"role": "assistant", "content": f"The answer is {problem.answer}."})
    return {"messages": messages, "tools": [CALCULATOR]}


if __name__ == "__main__":
    main()
