"""Writes train.jsonl, held_out.jsonl, the databases and demonstrations. No database of the one file is in the other.

``python tasks.py``              a small set of generated databases, from a seed
``python tasks.py --data DIR``   Spider's questions and databases, from a folder (its release, or a folder made like it)
``python tasks.py --hub``        the same, from the Hugging Face hub
``--single-table``               without joins, set operations and nested queries, which a small model cannot write
"""

import argparse
import json
import random
import re
import shutil
import sys
from pathlib import Path

import themes
from database import FOLDER, describe, path_of
from prompts import SYSTEM, ask

HERE = Path(__file__).parent
HUB_NAME = "premai-io/spider"
"""Spider with its databases; the one of its authors has the questions alone."""
SPIDER_HELD_OUT = ("concert_singer", "pets_1", "network_1", "singer", "employee_hire_evaluation")
SPLITS = (("train_spider.json", "dev.json"), ("train.json", "validation.json"))
LABELLED = 32
"""Questions that prompts may show; they are none of the tasks, on which prompts are compared."""
Questions = list[dict[str, str]]


def small_set(train: int, held_out: int, seed: int) -> tuple[Questions, Questions]:
    """So many questions about the generated databases, as many of each."""
    parts: tuple[Questions, Questions] = [], []
    for theme in themes.THEMES:
        asked = themes.make_database(theme, FOLDER / f"{theme}.sqlite", seed)
        if theme in themes.HELD_OUT:
            parts[1].extend(asked[: held_out // len(themes.HELD_OUT)])
        else:
            parts[0].extend(asked[: train // (len(themes.THEMES) - len(themes.HELD_OUT))])
    return parts


def spider(folder: Path) -> tuple[Questions, Questions]:
    """Spider's training and development questions, or, of the latter alone, those of some databases held out."""
    for train, held_out in SPLITS:
        if (folder / train).is_file() and (folder / held_out).is_file():
            return read_spider(folder / train), read_spider(folder / held_out)
    if not (folder / "questions.jsonl").is_file():
        sys.exit(f"{folder} has neither questions.jsonl nor {' nor '.join(' and '.join(names) for names in SPLITS)}")
    asked = read_spider(folder / "questions.jsonl")
    return tuple([one for one in asked if (one["database"] in SPIDER_HELD_OUT) is held] for held in (False, True))


def read_spider(path: Path) -> Questions:
    text = path.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    return [{"database": row["db_id"], "question": row["question"], "query": row["query"]} for row in rows]


def copy_databases(folder: Path, names: set[str]) -> None:
    """Puts the databases where the agent looks for them."""
    for name in names:
        found = [folder / "databases" / f"{name}.sqlite", folder / "database" / name / f"{name}.sqlite"]
        shutil.copyfile(next((path for path in found if path.is_file()), found[-1]), FOLDER / f"{name}.sqlite")


def is_single_table(sql: str) -> bool:
    words = re.findall(r"\w+", sql.lower())
    return words.count("select") == 1 and not {"join", "union", "intersect", "except"} & set(words)


def from_hub() -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        sys.exit("--hub needs the package huggingface_hub: pip install huggingface_hub")
    try:
        return Path(snapshot_download(HUB_NAME, repo_type="dataset"))
    except OSError as error:
        sys.exit(f"{HUB_NAME} cannot be had from the hub: {error}\nUnpack Spider's release, and name it with --data")


def write(name: str, questions: Questions) -> None:
    lines = []
    for place, one in enumerate(questions):
        state = {"question": one["question"], "database": one["database"]}
        lines.append({"id": f"{name}-{place}", "input": state, "expected": one["query"]})
    write_lines(HERE / f"{name}.jsonl", lines)


def write_demonstrations(name: str, questions: Questions, **more: str) -> None:
    """The gold query of each question, as the answer to what the agent asks its model."""
    schemas = {database: describe(path_of(database)) for database in {one["database"] for one in questions}}
    lines = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": ask(schemas[one["database"]], one["question"])},
                {"role": "assistant", "content": " ".join(one["query"].split())},
            ],
            **more,
        }
        for one in questions
    ]
    write_lines(HERE / "data" / f"{name}.jsonl", lines)


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="a folder with Spider")
    source.add_argument("--hub", action="store_true", help="Spider from the hub")
    parser.add_argument("--single-table", action="store_true", help="only questions about one table")
    parser.add_argument("--train", type=int, default=320, help="questions of the small set")
    parser.add_argument("--held-out", type=int, default=120, help="questions of the small set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if arguments.hub or arguments.data:
        folder = from_hub() if arguments.hub else arguments.data
        parts = spider(folder)
        if arguments.single_table:
            parts = tuple([one for one in part if is_single_table(one["query"])] for part in parts)
        copy_databases(folder, {one["database"] for part in parts for one in part})
    else:
        parts = small_set(arguments.train, arguments.held_out, arguments.seed)
    train, held_out = parts
    for part in parts:
        random.Random(arguments.seed).shuffle(part)
    labelled, train = train[:LABELLED], train[LABELLED:]
    write("train", train)
    write("held_out", held_out)
    write_demonstrations("demonstrations", [*labelled, *train])
    write_demonstrations("labelled", labelled, agent="write")
    print(f"{len(train)} questions to train with, {len(labelled)} to show, {len(held_out)} held out")


if __name__ == "__main__":
    main()
