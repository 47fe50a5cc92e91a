"""A folder with router data → the tasks of this example, and what its endpoint answers, in ``data``.

    python prepare.py FOLDER

``train.jsonl`` and ``test.jsonl`` have a line for each question: ``question``, and ``scores``, what each model's answer
to it was worth, from 0 to 1. The prices of the models are in ``config.yaml``.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent / "data"


def prepare(folder: Path) -> dict[str, int]:
    """Writes ``train.jsonl``, ``held_out.jsonl`` and ``answers.jsonl``; how many lines each has.

    A question that is in both files is answered as in the one that it was asked from: the second one gets a space at
    its end.
    """
    HERE.mkdir(exist_ok=True)
    counts, answers = {}, {}
    for source, target in (("train", "train"), ("test", "held_out")):
        with (folder / f"{source}.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        tasks = []
        for row in rows:
            question = row["question"]
            while question in answers:
                question += " "
            answers[question] = row["scores"]
            tasks.append({"input": question})
        counts[target] = write(HERE / f"{target}.jsonl", tasks)
    counts["answers"] = write(
        HERE / "answers.jsonl", [{"question": question, "scores": scores} for question, scores in answers.items()]
    )
    return counts


def write(path: Path, rows: list[dict]) -> int:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(prepare(Path(sys.argv[1])))
