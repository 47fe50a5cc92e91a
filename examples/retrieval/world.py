"""An invented world, made from a seed: passages on persons, towns and companies, and questions about them."""

import random
from dataclasses import dataclass, field

FIRST = ["Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karla", "Leo"]
PROFESSIONS = ["painter", "doctor", "baker", "sailor", "teacher", "writer", "singer", "lawyer", "farmer", "judge"]
PRODUCTS = ["cheese", "glass", "silver", "wine", "paper", "salt", "honey", "bells", "lace", "tea", "coal", "apples"]
GOODS = ["boats", "clocks", "shoes", "lamps", "tools", "toys", "carpets", "pianos", "bicycles", "hats"]
BEGINNINGS = ["Bar", "Cal", "Dor", "Fen", "Gal", "Hol", "Kel", "Lan", "Mar", "Nor", "Pel", "Ros", "Sal", "Tor", "Ver"]
MIDDLES = ["a", "e", "i", "o", "u", "an", "er", "in", "or"]
ENDINGS = {
    "town": ["ville", "ton", "burg", "field", "stad"],
    "river": ["ne", "ra", "sa", "va"],
    "person": ["son", "man", "wick", "ley", "sky"],
    "company": ["tex", "co", "works", "line"],
}


@dataclass
class Question:
    """``passages`` support the answer: their titles, in the order in which they have to be looked up. ``query`` is what
    to search first, where that is no title."""

    text: str
    answer: str
    passages: list[str]
    query: str | None = None


@dataclass
class World:
    """``passages`` are texts by title."""

    passages: dict[str, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)


class Names:
    """Invented names, each given once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._given: set[str] = set()

    def new(self, kind: str) -> str:
        while True:
            name = "".join(self._rng.choice(part) for part in (BEGINNINGS, MIDDLES, ENDINGS[kind]))
            if name not in self._given:
                self._given.add(name)
                return name


def make_world(rng: random.Random, names: Names, size: int) -> World:
    """A world of ``size`` towns and companies and twice as many persons. No name of it is in another of these names."""
    world = World()
    towns = [_town(rng, names, world) for _ in range(size)]
    persons = [_person(rng, names, world, rng.choice(towns)) for _ in range(2 * size)]
    for _ in range(size):
        _company(rng, names, world, rng.choice(persons))
    return world


def _town(rng: random.Random, names: Names, world: World) -> dict[str, str]:
    town = {"name": names.new("town"), "river": names.new("river"), "product": rng.choice(PRODUCTS)}
    title = town["name"]
    world.passages[title] = f"{title} is a town on the river {town['river']}, known for its {town['product']}."
    world.questions += [
        Question(f"On which river is {title}?", town["river"], [title]),
        Question(f"What is {title} known for?", town["product"], [title]),
    ]
    return town


def _person(rng: random.Random, names: Names, world: World, town: dict[str, str]) -> dict[str, str]:
    title, home = f"{rng.choice(FIRST)} {names.new('person')}", town["name"]
    profession = rng.choice(PROFESSIONS)
    world.passages[title] = f"{title} was a {profession}, born in {home} in {rng.randint(1800, 1990)}."
    world.questions += [
        Question(f"Where was {title} born?", home, [title]),
        Question(f"What was the profession of {title}?", profession, [title]),
        Question(f"On which river is the town where {title} was born?", town["river"], [title, home]),
        Question(f"What is the town known for where {title} was born?", town["product"], [title, home]),
    ]
    return {"name": title, "profession": profession, "home": home}


def _company(rng: random.Random, names: Names, world: World, founder: dict[str, str]) -> None:
    title, year, who = names.new("company"), str(rng.randint(1850, 2020)), founder["name"]
    world.passages[title] = f"{title} makes {rng.choice(GOODS)}. It was founded by {who} in {year}."
    world.questions += [
        Question(f"Who founded {title}?", who, [title]),
        Question(f"In which year was {title} founded?", year, [title]),
        Question(f"Where was the founder of {title} born?", founder["home"], [title, who]),
        Question(f"What was the profession of the founder of {title}?", founder["profession"], [title, who]),
    ]
