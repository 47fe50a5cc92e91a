"""Word problems of one and two steps in the manner of GSM8K, made from a seed."""

import random
from typing import NamedTuple

from calculator import calculate

NAMES = ["Ava", "Bruno", "Chloe", "Dmitri", "Elif", "Femi", "Gita", "Henrik", "Iris", "Jamal", "Keiko", "Luca", "Maya"]
THINGS = [
    "stickers",
    "marbles",
    "postcards",
    "seashells",
    "buttons",
    "candles",
    "ribbons",
    "tulips",
    "muffins",
    "coins",
]
BOXES = ["boxes", "baskets", "trays", "crates", "bags"]
SHOPS = ["bakery", "library", "car wash", "bookshop", "garden center"]

ONE_STEP = [
    (
        "{name} has a collection of {a} {things}. As a present {other} gives {name} {b} more. "
        "How many {things} does {name} have now?",
        ["{a} + {b}"],
    ),
    (
        "There were {sum} {things} in the shop this morning. During the day {name} sold {b} of them. "
        "How many {things} are left in the shop?",
        ["{sum} - {b}"],
    ),
    (
        "{name} fills {k} {boxes} for the school fair. There are {a} {things} in each of them. "
        "How many {things} does {name} need?",
        ["{k} * {a}"],
    ),
    (
        "{name} bakes {product} muffins for a party. The {k} guests share them equally. "
        "How many muffins does each guest get?",
        ["{product} / {k}"],
    ),
    (
        "{name} earns ${a} an hour at the {shop}. Last week {name} worked there for {k} hours. "
        "How much did {name} earn, in dollars?",
        ["{a} * {k}"],
    ),
]
TWO_STEPS = [
    (
        "In April {name} sold {even} {things} to friends. In May {name} sold half as many. "
        "How many {things} did {name} sell in both months together?",
        ["{even} / 2", "{even} + {first}"],
    ),
    (
        "{name} has {a} {things}. {other} has {k} times as many. How many {things} do they have together?",
        ["{k} * {a}", "{a} + {first}"],
    ),
    (
        "{name} buys {k} {boxes} of {things} for the class. Each of them holds {a}, and {j} {things} are broken. "
        "How many {things} can the class use?",
        ["{k} * {a}", "{first} - {j}"],
    ),
    (
        "{name} wants a bicycle that costs ${much}. {name} has saved ${a}, and {other} gives {name} ${b} more. "
        "How many dollars does {name} still need?",
        ["{a} + {b}", "{much} - {first}"],
    ),
    (
        "A ticket to the zoo costs ${a} for an adult and ${j} for a child. {name} pays for {k} adults and one child. "
        "How much does {name} pay, in dollars?",
        ["{k} * {a}", "{first} + {j}"],
    ),
    (
        "{name} works {k} hours a day at the {shop}. The {shop} pays ${a} an hour. "
        "How many dollars does {name} earn in {j} days?",
        ["{k} * {a}", "{first} * {j}"],
    ),
    (
        "A bus leaves the station with {sum} passengers. At the first stop {b} of them get off and {j} get on. "
        "How many passengers are on the bus now?",
        ["{sum} - {b}", "{first} + {j}"],
    ),
    (
        "{name} is {a} years old. {other} is {j} years older, and their aunt is {k} times as old as {other}. "
        "How old is the aunt?",
        ["{a} + {j}", "{first} * {k}"],
    ),
    (
        "{name} collects {more} {things}. {name} keeps {j} of them, and puts the others into {k} {boxes}, "
        "the same number in each. How many {things} are in each of the {boxes}?",
        ["{more} - {j}", "{first} / {k}"],
    ),
]


class Problem(NamedTuple):
    """A question, the calculations that solve it with their results, and its answer."""

    question: str
    calculations: list[tuple[str, str]]
    answer: str


def problems(count: int, seed: int) -> list[Problem]:
    """Distinct problems; the same for the same seed."""
    rng = random.Random(seed)
    made: dict[str, Problem] = {}
    while len(made) < count:
        problem = make(rng)
        made.setdefault(problem.question, problem)
    return list(made.values())


def make(rng: random.Random) -> Problem:
    question, expressions = rng.choice(ONE_STEP + TWO_STEPS)
    name, other = rng.sample(NAMES, 2)
    a, b, j, k = rng.randint(3, 40), rng.randint(3, 40), rng.randint(2, 9), rng.randint(2, 9)
    product = k * rng.randint(2, 15)
    values = {
        "name": name, "other": other, "things": rng.choice(THINGS), "boxes": rng.choice(BOXES),
        "shop": rng.choice(SHOPS), "a": a, "b": b, "j": j, "k": k, "sum": a + b, "product": product,
        "even": 2 * rng.randint(3, 40), "much": a + b + rng.randint(3, 60), "more": product + j,
    }  # fmt: skip
    calculations = []
    for expression in expressions:
        written = expression.format(**values)
        values["first"] = calculate(written)
        calculations.append((written, values["first"]))
    return Problem(question.format(**values), calculations, calculations[-1][1])
