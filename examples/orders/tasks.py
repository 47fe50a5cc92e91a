"""Orders in customers' words, made from a seed: ``python tasks.py`` writes train.jsonl and held_out.jsonl.

No message of the one file is in the other.
"""

import json
import random
from pathlib import Path

NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mina"]
THINGS = [
    "apples",
    "lamps",
    "chairs",
    "stamps",
    "towels",
    "cups",
    "candles",
    "pencils",
    "cookies",
    "stickers",
    "plates",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
MESSAGES = [
    "Hi, {name} here. Could I have {count} {things} by {day}?",
    "Please send {count} {things} to {number} Main Street. Thanks, {name}",
    "We moved on {day} and need {count} {things}. Best, {name}",
    "My sister bought {number} {others} here, and I would like {count} {things}.",
    "{name} told me that you sell {things}. I will take {count} of them.",
    "I have {number} {things} already. Another {count} would be great by {day}.",
    "Good morning! {count} {things}, please, and no {others} this time.",
]


def task(rng: random.Random) -> dict[str, str]:
    things, others = rng.sample(THINGS, 2)
    count, number = rng.sample(range(2, 60), 2)
    values = {"name": rng.choice(NAMES), "things": things, "others": others, "count": count, "number": number}
    return {"input": rng.choice(MESSAGES).format(**values, day=rng.choice(DAYS)), "expected": str(count)}


def write(folder: Path, train: int = 256, held_out: int = 100, seed: int = 0) -> None:
    rng = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < train + held_out:
        one = task(rng)
        made.setdefault(one["input"], one)
    tasks = list(made.values())
    for name, part in (("train", tasks[:train]), ("held_out", tasks[train:])):
        lines = (json.dumps({"id": f"{name}-{place}", **task}) + "\n" for place, task in enumerate(part))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent)
