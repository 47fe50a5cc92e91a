"""Word problems, each with the number and the things that it asks for: ``python tasks.py`` writes train.jsonl and
held_out.jsonl, the same from the same seed. No question of the one file is in the other."""

import json
import random
from pathlib import Path

NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mina"]
THINGS = ["apples", "books", "coins", "stamps", "marbles", "cards", "shells", "pencils", "cookies", "stickers"]
BOXES = ["bags", "boxes", "baskets", "jars", "shelves", "packs"]
PROBLEMS = [
    ("{name} has {a} {things} and buys {b} more. How many are there now?", "{a} + {b}"),
    ("{name} has {a} {things} and {other} has {b}. How many do they have together?", "{a} + {b}"),
    ("There are {big} {things} on a table. {name} takes {b} of them. How many are left?", "{big} - {b}"),
    ("{name} had {big} {things} and gave {b} to {other}. How many does {name} still have?", "{big} - {b}"),
    ("{name} has {k} {boxes} with {a} {things} in each. How many is that?", "{k} * {a}"),
    ("{name} shares {product} {things} equally among {k} friends. How many does each get?", "{product} / {k}"),
]


def problem(rng: random.Random) -> dict:
    text, calculation = rng.choice(PROBLEMS)
    name, other = rng.sample(NAMES, 2)
    a, b, k, things = rng.randint(3, 20), rng.randint(3, 20), rng.randint(2, 9), rng.choice(THINGS)
    values = {
        "name": name, "other": other, "things": things, "boxes": rng.choice(BOXES),
        "a": a, "b": b, "k": k, "big": b + rng.randint(3, 20), "product": k * rng.randint(2, 12),
    }  # fmt: skip
    number = f"{eval(calculation.format(**values)):g}"
    return {"input": {"question": text.format(**values)}, "expected": {"number": number, "things": things}}


def write(folder: Path, train: int = 256, held_out: int = 64, seed: int = 0) -> None:
    rng = random.Random(seed)
    made: dict[str, dict] = {}
    while len(made) < train + held_out:
        task = problem(rng)
        made.setdefault(task["input"]["question"], task)
    tasks = list(made.values())
    for name, part in (("train", tasks[:train]), ("held_out", tasks[train:])):
        lines = (json.dumps({"id": f"{name}-{place}", **task}) + "\n" for place, task in enumerate(part))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent)
