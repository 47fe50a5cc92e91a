"""What Spider's public evaluator (taoyds/test-suite-sql-eval, exec_eval.py) says of pairs of queries.

``python text_to_sql_golden.py EVALUATOR`` runs it, from a folder that has it, on every pair of the queries below, and
writes text_to_sql_golden.json. ``--spider DIR`` compares the example's reward with it on Spider's own questions, and
writes nothing. The evaluator needs the packages sqlparse and tqdm.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GOLDEN = HERE / "text_to_sql_golden.json"
EXAMPLE = HERE.parents[1] / "examples" / "text_to_sql"
ROWS = [
    ("Ann", "Rome", 30, 1.5, 1),
    ("Bob", "Rome", 25, 2.0, 0),
    ("Cid", "Oslo", 30, 2.0, None),
    ("Dee", "Lima", 41, 10.0, 1),
    ("Eve", "Oslo", 25, 1.5, 1),
    ("Ann", "Rome", 30, 1.5, 1),
]
QUERIES = [
    "SELECT name FROM person",
    "SELECT name FROM person ORDER BY name",
    "SELECT name FROM person ORDER BY name DESC",
    "SELECT DISTINCT name FROM person",
    "SELECT DISTINCT name FROM person ORDER BY name",
    "select NAME from PERSON",
    "SELECT p.name AS who FROM person AS p;",
    "SELECT name FROM person GROUP BY name",
    "SELECT name FROM person WHERE age > 26",
    "SELECT name FROM person WHERE age > = 26",
    "SELECT name FROM person WHERE age > 30",
    "SELECT name FROM person WHERE city = 'Rome'",
    'SELECT name FROM person WHERE city = "Rome"',
    "SELECT name FROM person WHERE city LIKE 'rome'",
    "SELECT name FROM person WHERE city = 'rome'",
    "SELECT name FROM person LIMIT 3",
    "SELECT name, age FROM person",
    "SELECT age, name FROM person",
    "SELECT age, name FROM person ORDER BY age, name",
    "SELECT name, age FROM person ORDER BY age, name",
    "SELECT name, age FROM person ORDER BY age DESC",
    "SELECT name, name FROM person",
    "SELECT name, city, age FROM person",
    "SELECT age, city, name FROM person",
    "SELECT * FROM person",
    "SELECT member, weight, age, city, name FROM person",
    "SELECT name, city, age, weight, age FROM person",
    "SELECT count(*) FROM person",
    "SELECT count(name) FROM person",
    "SELECT count(DISTINCT name) FROM person",
    "SELECT count(member) FROM person",
    "SELECT count(*) + 0.0 FROM person",
    "SELECT '6'",
    "SELECT 6",
    "SELECT 6.0",
    "SELECT sum(member) FROM person",
    "SELECT avg(age) FROM person",
    "SELECT sum(age) * 1.0 / count(age) FROM person",
    "SELECT sum(age) / count(age) FROM person",
    "SELECT min(age), max(age) FROM person",
    "SELECT max(age), min(age) FROM person",
    "SELECT max(age) FROM person",
    "SELECT age FROM person ORDER BY age DESC LIMIT 1",
    "SELECT name FROM person ORDER BY age DESC LIMIT 1",
    "SELECT name FROM person WHERE age = (SELECT max(age) FROM person)",
    "SELECT city, count(*) FROM person GROUP BY city",
    "SELECT count(*), city FROM person GROUP BY city",
    "SELECT city, count(*) FROM person GROUP BY city ORDER BY count(*)",
    "SELECT city, count(*) FROM person GROUP BY city ORDER BY count(*) DESC",
    "SELECT city, count(DISTINCT name) FROM person GROUP BY city",
    "SELECT city FROM person GROUP BY city HAVING count(*) > 1",
    "SELECT city FROM person WHERE age > 100",
    "SELECT name, age FROM person WHERE age > 100",
    "SELECT member FROM person",
    "SELECT member FROM person WHERE member IS NULL",
    "SELECT NULL",
    "SELECT weight FROM person",
    "SELECT weight, age FROM person WHERE name = 'Bob'",
    "SELECT 2, 25",
    "SELECT 1.5, 1 UNION SELECT 2.5, 2 ORDER BY 1",
    "SELECT 1.5, 1.0 UNION SELECT 2.5, 2.0 ORDER BY 1",
    "SELECT name FROM person WHERE city = 'Rome' UNION SELECT name FROM person WHERE city = 'Oslo'",
    "SELECT name FROM person WHERE city = 'Rome' UNION ALL SELECT name FROM person WHERE city = 'Oslo'",
    "SELECT name FROM person WHERE city IN ('Rome', 'Oslo')",
    "SELECT name FROM person EXCEPT SELECT name FROM person WHERE city = 'Lima'",
    "SELECT x.name FROM person x JOIN person y ON x.city = y.city AND x.age < y.age",
    "SELECT name FROM nobody",
    "SELECT FROM person",
    "SELECT name FROM person; SELECT 1",
    "-- nothing",
]


def make_database(path: Path) -> None:
    """Six people: one of them twice, some with the same age, one without a number."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE person (name, city, age, weight, member)")
    connection.executemany("INSERT INTO person VALUES (?, ?, ?, ?, ?)", ROWS)
    connection.commit()
    connection.close()


def executable(path: Path) -> list[str]:
    """The queries that can be gold ones."""
    connection = sqlite3.connect(path)
    found = []
    for query in QUERIES:
        try:
            if connection.execute(query).description is not None:
                found.append(query)
        except (sqlite3.Error, sqlite3.Warning):
            continue
    connection.close()
    return found


def write_golden(evaluator: Any, folder: Path) -> None:
    path = folder / "people.sqlite"
    make_database(path)
    gold = executable(path)
    rows = {
        "evaluator": "taoyds/test-suite-sql-eval, exec_eval.py: eval_exec_match, plug_value=False",
        "predicted": QUERIES,
        "gold": {
            query: {
                name: "".join(str(evaluator(str(path), it, query, False, keep, False)) for it in QUERIES)
                for name, keep in (("keep_distinct", True), ("without_distinct", False))
            }
            for query in gold
        },
    }
    GOLDEN.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(gold) * len(QUERIES)} pairs: {GOLDEN}\n")


def changed(sql: str, rng: random.Random) -> list[str]:
    """The same query with its columns turned round, without its order, with DISTINCT, with other numbers and texts."""
    columns = re.match(r"(?i)select\s+([\w.]+)\s*,\s*([\w.]+)\s+from", sql)
    turned = f"SELECT {columns[2]}, {columns[1]} FROM {sql[columns.end() :]}" if columns else sql
    return [
        turned,
        re.sub(r"(?i)\border by.*", "", sql),
        re.sub(r"(?i)\bdesc\b", "ASC", sql),
        re.sub(r"(?i)^select\s+(?!distinct)", "SELECT DISTINCT ", sql),
        re.sub(r"(?i)\bdistinct\b", "", sql),
        re.sub(r"\b\d+\b", lambda _: str(rng.randint(1, 30)), sql),
        re.sub(r"(?i)\blimit\s+\d+", "", sql),
        re.sub(r"(?i)\bmax\b", "min", sql),
    ]


def compare_on_spider(evaluator: Any, spider: Path, folder: Path, seed: int = 0) -> None:
    """Each gold query with itself, changed ones, and four gold queries of the same database; prints what differs."""
    sys.path.insert(0, str(EXAMPLE))
    from reward import difference

    rng = random.Random(seed)
    rows = [json.loads(line) for line in (spider / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    by_database: dict[str, list[str]] = {}
    for row in rows:
        by_database.setdefault(row["db_id"], []).append(row["query"])
    counts: Counter[str] = Counter()
    for database, queries in by_database.items():
        path = folder / database / f"{database}.sqlite"
        path.parent.mkdir()
        shutil.copyfile(spider / "databases" / path.name, path)
        for gold in queries:
            for predicted in [gold, *changed(gold, rng), *rng.sample(queries, min(4, len(queries)))]:
                said = bool(evaluator(str(path), predicted, gold, False, True, False))
                without_distinct = bool(evaluator(str(path), predicted, gold, False, False, False))
                ours = difference(path, predicted, gold) is None
                counts["pairs"] += 1
                counts["right"] += said
                counts["agree"] += said is ours
                counts["agree where it drops DISTINCT"] += without_distinct is ours
                if said is not ours:
                    sys.stdout.write(f"{database}: {said}, reward {ours}\n  gold {gold}\n  said {predicted}\n")
    sys.stdout.write(f"{dict(counts)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluator", type=Path)
    parser.add_argument("--spider", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.evaluator))
    from exec_eval import eval_exec_match

    with tempfile.TemporaryDirectory() as folder:
        if arguments.spider:
            compare_on_spider(eval_exec_match, arguments.spider, Path(folder))
        else:
            write_golden(eval_exec_match, Path(folder))


if __name__ == "__main__":
    main()
