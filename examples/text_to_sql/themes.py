"""Twelve small databases and questions about them, the same from the same seed. Each is about one theme and has two
tables; every question is about one of them."""

import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

FIRST = ["Anna", "Ben", "Carla", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kira", "Liam", "Mina"]
LAST = ["Adler", "Brook", "Costa", "Dunn", "Evans", "Fox", "Gray", "Holm", "Ivers", "Jung", "Keller", "Lopez"]
FIRST_WORD = ["Blue", "Golden", "Silent", "Old", "Little", "Wild", "Northern", "Red", "Lost", "Quiet", "Bright"]
LAST_WORD = ["River", "Garden", "Star", "Bridge", "Forest", "Harbour", "Mountain", "Road", "Island", "Tower"]
CITIES = ["Paris", "Rome", "Oslo", "Lima", "Cairo", "Dublin"]
COUNTRIES = ["France", "Italy", "Norway", "Peru", "Egypt", "Ireland"]


@dataclass
class Table:
    """What the rows are of, how many there may be of them, what they are called, and their other columns."""

    thing: str
    label: str
    categories: dict[str, list[str]]
    numbers: dict[str, tuple[int, int]]

    @property
    def columns(self) -> list[str]:
        return [f"{self.thing}_id", self.label, *self.categories, *self.numbers]


PERSON = {"city": CITIES}
THEMES = {
    "zoo": [
        Table("animal", "name", {"species": ["lion", "bear", "zebra", "otter"]}, {"age": (1, 40), "weight": (5, 900)}),
        Table("keeper", "name", PERSON, {"salary": (1500, 4000)}),
    ],
    "shop": [
        Table("product", "name", {"category": ["food", "toys", "tools", "books"]}, {"price": (2, 300)}),
        Table("customer", "name", PERSON, {"age": (18, 90), "points": (0, 500)}),
    ],
    "school": [
        Table("student", "name", {"major": ["art", "physics", "history", "music"]}, {"age": (16, 40)}),
        Table("course", "title", {"room": ["A1", "A2", "B1", "B2"]}, {"credits": (1, 30), "seats": (10, 200)}),
    ],
    "library": [
        Table("book", "title", {"genre": ["crime", "poetry", "travel", "drama"]}, {"pages": (50, 900)}),
        Table("member", "name", PERSON, {"age": (8, 90), "loans": (0, 80)}),
    ],
    "airline": [
        Table("pilot", "name", {"nationality": COUNTRIES}, {"age": (25, 65), "hours": (100, 9000)}),
        Table("airport", "name", {"country": COUNTRIES}, {"runways": (1, 30)}),
    ],
    "football": [
        Table("player", "name", {"position": ["goalkeeper", "defender", "forward"]}, {"goals": (0, 90)}),
        Table("stadium", "name", PERSON, {"capacity": (1000, 90000), "opened": (1900, 2020)}),
    ],
    "music": [
        Table("band", "name", {"country": COUNTRIES}, {"founded": (1950, 2020)}),
        Table("album", "title", {"format": ["vinyl", "disc", "tape"]}, {"sales": (100, 9000), "tracks": (5, 40)}),
    ],
    "hospital": [
        Table("doctor", "name", {"department": ["surgery", "dental", "eyes"]}, {"salary": (3000, 9000)}),
        Table("patient", "name", PERSON, {"age": (1, 99), "visits": (1, 60)}),
    ],
    "restaurant": [
        Table("dish", "name", {"cuisine": ["Thai", "Greek", "Indian"]}, {"price": (4, 60), "calories": (100, 1500)}),
        Table("waiter", "name", {"shift": ["morning", "evening", "night"]}, {"wage": (10, 60)}),
    ],
    "museum": [
        Table("painting", "title", {"style": ["cubism", "baroque", "realism"]}, {"year": (1500, 2020)}),
        Table("visitor", "name", {"country": COUNTRIES}, {"age": (5, 90), "tickets": (1, 60)}),
    ],
    "garage": [
        Table("car", "model", {"colour": ["red", "black", "white", "green"]}, {"horsepower": (50, 500)}),
        Table("mechanic", "name", PERSON, {"experience": (1, 45), "salary": (1800, 5000)}),
    ],
    "cinema": [
        Table("film", "title", {"director": ["Rossi", "Moreau"]}, {"minutes": (60, 220), "year": (1930, 2024)}),
        Table("actor", "name", {"nationality": COUNTRIES}, {"awards": (0, 60)}),
    ],
}
HELD_OUT = ("restaurant", "museum", "garage", "cinema")

QUESTIONS = {
    "SELECT count(*) FROM {table}": [
        "How many {things} are there?",
        "What is the number of {things}?",
    ],
    "SELECT {label} FROM {table}": [
        "List the {label} of every {thing}.",
        "What are the {label}s of all {things}?",
    ],
    "SELECT {label}, {number} FROM {table}": [
        "Show the {label} and {number} of each {thing}.",
        "What are the {label} and the {number} of all {things}?",
    ],
    "SELECT DISTINCT {category} FROM {table}": [
        "What are the different {category} values of the {things}?",
        "Which {category} values do the {things} have?",
    ],
    "SELECT count(DISTINCT {category}) FROM {table}": [
        "How many different {category} values have the {things}?",
        "Count different {category} values of {things}.",
    ],
    "SELECT {number} FROM {table} WHERE {label} = '{value}'": [
        "What is the {number} of the {thing} called {value}?",
        "Which {number} has the {thing} {value}?",
    ],
    "SELECT count(*) FROM {table} WHERE {category} = '{kind}'": [
        "How many {things} have the {category} {kind}?",
        "Count the {things} whose {category} is {kind}.",
    ],
    "SELECT {label} FROM {table} WHERE {category} = '{kind}'": [
        "List the {label} of the {things} whose {category} is {kind}.",
        "Which {things} have the {category} {kind}?",
    ],
    "SELECT {label} FROM {table} WHERE {number} > {limit}": [
        "List the {label} of {things} with a {number} above {limit}.",
        "Which {things} have a {number} above {limit}?",
    ],
    "SELECT count(*) FROM {table} WHERE {number} < {limit}": [
        "How many {things} have a {number} below {limit}?",
        "Count the {things} with a {number} below {limit}.",
    ],
    "SELECT avg({number}) FROM {table}": [
        "What is the average {number} of the {things}?",
        "What {number} do the {things} have on average?",
    ],
    "SELECT min({number}), max({number}) FROM {table}": [
        "What are the lowest and highest {number} of the {things}?",
        "Find the least and largest {number} of {things}.",
    ],
    "SELECT {label} FROM {table} ORDER BY {number} DESC LIMIT 1": [
        "Which {thing} has the highest {number}?",
        "What is the {label} of the {thing} with the largest {number}?",
    ],
    "SELECT {label} FROM {table} ORDER BY {number} LIMIT 1": [
        "Which {thing} has the lowest {number}?",
        "What is the {label} of the {thing} with the least {number}?",
    ],
    "SELECT {label} FROM {table} ORDER BY {number}": [
        "List the {label} of all {things}, ordered by {number}.",
        "Sort the {things} by {number}; show the {label}.",
    ],
    "SELECT {category}, count(*) FROM {table} GROUP BY {category}": [
        "How many {things} are there of each {category}?",
        "Show each {category} and the number of its {things}.",
    ],
    "SELECT {category}, avg({number}) FROM {table} GROUP BY {category}": [
        "What is the average {number} of {things} for each {category}?",
        "Show the mean {number} by {category} of {things}.",
    ],
}
"""Queries, and questions that they answer."""


def plural(thing: str) -> str:
    return f"{thing}es" if thing.endswith("sh") else f"{thing}s"


def rows_of(table: Table, rng: random.Random) -> list[tuple]:
    """Rows whose names differ, and whose numbers do, so that a highest one is one."""
    count = rng.randint(8, 20)
    first, last = (FIRST, LAST) if table.label == "name" else (FIRST_WORD, LAST_WORD)
    labels = rng.sample([f"{one} {other}" for one in first for other in last], count)
    categories = [[rng.choice(values) for _ in range(count)] for values in table.categories.values()]
    numbers = [rng.sample(range(low, high + 1), count) for low, high in table.numbers.values()]
    return list(zip(range(1, count + 1), labels, *categories, *numbers, strict=True))


def make_database(theme: str, path: Path, seed: int = 0) -> list[dict[str, str]]:
    """Writes the database of a theme; returns all questions that can be asked of it, in a random order."""
    rng = random.Random(f"{theme} {seed}")
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    asked = []
    for table in THEMES[theme]:
        rows = rows_of(table, rng)
        connection.execute(f"CREATE TABLE {table.thing} ({', '.join(table.columns)})")
        connection.executemany(f"INSERT INTO {table.thing} VALUES ({', '.join('?' * len(table.columns))})", rows)
        asked += questions_of(table, rows, rng)
    connection.commit()
    connection.close()
    rng.shuffle(asked)
    return [{"database": theme, **one} for one in asked]


def questions_of(table: Table, rows: list[tuple], rng: random.Random) -> list[dict[str, str]]:
    """Each kind of question once for each of the table's columns that it can be about."""
    category, kinds = next(iter(table.categories.items()))
    asked = {}
    for sql, wordings in QUESTIONS.items():
        for number in table.numbers:
            column = [row[table.columns.index(number)] for row in rows]
            values = {
                "thing": table.thing, "things": plural(table.thing), "table": table.thing, "label": table.label,
                "category": category, "kind": rng.choice(kinds), "number": number,
                "value": rng.choice(rows)[1], "limit": rng.choice(sorted(column)[2:-2]),
            }  # fmt: skip
            for wording in wordings:
                question = wording.format(**values)
                asked.setdefault(question, {"question": question, "query": sql.format(**values)})
    return list(asked.values())
