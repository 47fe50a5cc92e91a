"""Sheets of six word problems, and what the first one comes to: ``python tasks.py`` writes train.jsonl and
held_out.jsonl. The problems are those of examples/two_roles."""

import json
import random
import runpy
from pathlib import Path

HERE = Path(__file__).parent
SHEET = 6
problem = runpy.run_path(str(HERE.parent / "two_roles" / "tasks.py"))["problem"]


def write(folder: Path, train: int = 256, held_out: int = 64, seed: int = 0) -> None:
    rng = random.Random(seed)
    for name, count in (("train", train), ("held_out", held_out)):
        lines = []
        for place in range(count):
            problems = [problem(rng) for _ in range(SHEET)]
            sheet = [one["input"]["question"] for one in problems]
            task = {"id": f"{name}-{place}", "input": {"sheet": sheet}, "expected": problems[0]["expected"]["number"]}
            lines.append(json.dumps(task) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(HERE)
