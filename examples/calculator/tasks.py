"""Word problems of one and two steps, made from a seed: ``python tasks.py`` writes train.jsonl and held_out.jsonl.

No question of the one file is in the other.
"""

import json
import random
import sys
from pathlib import Path

NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mina"]
THINGS = ["apples", "books", "coins", "stamps", "marbles", "cards", "shells", "pencils", "cookies", "stickers"]
BOXES = ["bags", "boxes", "baskets", "jars", "shelves", "packs"]

ONE_STEP = [
    ("{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?", "{a} + {b}"),
    ("{name} has {a} {things} and {other} has {b}. How many {things} do they have together?", "{a} + {b}"),
    ("There are {big} {things} on a table. {name} takes {b} of them. How many are left?", "{big} - {b}"),
    ("{name} had {big} {things} and gave {b} to {other}. How many does {name} still have?", "{big} - {b}"),
    ("{name} has {k} {boxes} with {a} {things} in each. How many {things} is that?", "{k} * {a}"),
    ("{name} shares {product} {things} equally among {k} friends. How many does each friend get?", "{product} / {k}"),
]
TWO_STEP = [
    ("{name} has {k} {boxes} of {a} {things} and finds {b} more. How many {things} in all?", "{k} * {a} + {b}"),
    ("{name} had {big} {things}, gave {b} to {other} and then bought {a}. How many now?", "{big} - {b} + {a}"),
    ("{name} buys {k} {boxes} of {a} {things} and loses {j} of them. How many are left?", "{k} * {a} - {j}"),
    ("{name} has {a} {things}, {other} has {b} and a friend has {j}. How many together?", "{a} + {b} + {j}"),
]


def problem(random: random.Random, two_steps: float) -> dict[str, str]:
    text, expression = random.choice(TWO_STEP if random.random() < two_steps else ONE_STEP)
    name, other = random.sample(NAMES, 2)
    a, b, j, k = random.randint(3, 20), random.randint(3, 20), random.randint(2, 9), random.randint(2, 9)
    values = {
        "name": name, "other": other, "things": random.choice(THINGS), "boxes": random.choice(BOXES),
        "a": a, "b": b, "j": j, "k": k, "big": b + random.randint(3, 20), "product": k * random.randint(2, 12),
    }  # fmt: skip
    return {"input": text.format(**values), "expected": f"{eval(expression.format(**values)):g}"}


def problems(count: int, seed: int, two_steps: float = 0.15) -> list[dict[str, str]]:
    """Distinct problems; the same for the same seed."""
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < count:
        task = problem(rng, two_steps)
        made.setdefault(task["input"], task)
    return list(made.values())


def write(folder: Path, train: int = 512, held_out: int = 128, seed: int = 0) -> None:
    tasks = problems(train + held_out, seed)
    for name, part in (("train", tasks[:train]), ("held_out", tasks[train:])):
        lines = (json.dumps({"id": f"{name}-{place}", **task}) + "\n" for place, task in enumerate(part))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
