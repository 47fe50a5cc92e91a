"""Writes what the agent is trained on: train.jsonl, held_out.jsonl, and data/ with its library and demonstrations.

    python tasks.py                the small set: an invented world, from a seed
    python tasks.py --data FOLDER  HotpotQA from a folder with questions.jsonl and corpus.jsonl
    python tasks.py --hub 1000     HotpotQA from the hub, so many questions (needs `pip install datasets`)

No question of train.jsonl is in held_out.jsonl; in the small set no town, person or company is in both. Conversations
that answer the questions of train.jsonl are demonstrations for `sft`; those that `few_shot` shows (labelled.jsonl)
answer others of the same world, as it validates on train.jsonl.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from world import Names, Question, make_world

HERE = Path(__file__).parent
TRAIN, HELD_OUT, SHOWN, SEED = 256, 96, 24, 0
HUB_NAME = "hotpotqa/hotpot_qa"


class Questions(NamedTuple):
    """What is written: passages, as texts by title, and the questions of each file."""

    passages: dict[str, str]
    train: list[Question]
    held_out: list[Question]
    shown: list[Question]


def small_set() -> Questions:
    """Two invented worlds in one library: one to learn from, and one that is held out."""
    rng = random.Random(SEED)
    names = Names(rng)
    worlds = [make_world(rng, names, size) for size in (24, 12)]
    passages = [item for world in worlds for item in world.passages.items()]
    rng.shuffle(passages)
    train, held_out = (rng.sample(world.questions, len(world.questions)) for world in worlds)
    return Questions(dict(passages), train[:TRAIN], held_out[:HELD_OUT], train[TRAIN : TRAIN + SHOWN])


def hotpot_folder(folder: Path) -> Questions:
    """HotpotQA in two files: questions with ``supporting_facts``, and the corpus with ``title`` and ``text``."""
    passages = {row["title"]: row["text"] for row in read(folder / "corpus.jsonl")}
    rows = list(read(folder / "questions.jsonl"))
    return split(passages, [hotpot_question(row, row["supporting_facts"]) for row in rows])


def hotpot_hub(count: int) -> Questions:
    """The first questions of HotpotQA's distractor setting, and all passages that come with them."""
    try:
        from datasets import load_dataset
    except ImportError:
        sys.exit("HotpotQA from the hub needs a package: pip install datasets; or name a folder with --data")
    passages, questions = {}, []
    for row in load_dataset(HUB_NAME, "distractor", split=f"train[:{count}]"):
        for title, sentences in zip(row["context"]["title"], row["context"]["sentences"], strict=True):
            passages[title] = "".join(sentences)
        facts = zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"], strict=True)
        questions.append(hotpot_question(row, facts))
    return split(passages, questions)


def hotpot_question(row: dict, facts: Iterable) -> Question:
    titles = list(dict.fromkeys(title for title, _ in facts))
    return Question(row["question"], row["answer"], titles, query=row["question"])


def split(passages: dict[str, str], questions: list[Question]) -> Questions:
    """A half that is held out, at most 200; of the rest some to show, and most to learn from."""
    random.Random(SEED).shuffle(questions)
    held_out = min(len(questions) // 2, 200)
    shown = min(held_out // 10, SHOWN)
    return Questions(passages, questions[held_out + shown :], questions[:held_out], questions[held_out:][:shown])


def conversation(question: Question, numbers: dict[str, int]) -> list[dict] | None:
    """How the agent would answer: it looks up what it knows of, from the question or from a passage, until it has read
    all that it needs, and cites that. None where it cannot find it so."""
    from agent import librarian, library

    messages: list[dict] = [
        {"role": "system", "content": librarian.instructions},
        {"role": "user", "content": question.text},
    ]
    needed = [numbers[title] for title in question.passages]
    known, read = question.text, set()
    for query in filter(None, (question.query, *map(without_brackets, question.passages))):
        if query not in known or (query != question.query and all(number in read for number in needed)):
            continue
        found = library.search(query)
        read |= {passage.number for passage in found}
        result = "\n".join(map(str, found))
        known += result
        messages += searched(f"call_{len(messages)}", query, result)
    if not read.issuperset(needed):
        return None
    cited = " ".join(f"[{number}]" for number in needed)
    return [*messages, {"role": "assistant", "content": f"{question.answer} {cited}"}]


def without_brackets(title: str) -> str:
    """What a text calls it: *Lilu* for *Lilu (mythology)*."""
    return title.split(" (")[0]


def searched(id: str, query: str, result: str) -> list[dict]:
    call = {"name": "search", "arguments": json.dumps({"query": query})}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": id, "content": result},
    ]


def tools() -> list[dict]:
    """The agent's tools as its model is shown them, in the order of the SDK's own fields."""
    from agent import librarian

    shown = []
    for tool in librarian.tools:
        function = {"name": tool.name, "parameters": tool.params_json_schema, "strict": tool.strict_json_schema}
        shown.append({"type": "function", "function": {**function, "description": tool.description}})
    return shown


def write(made: Questions) -> None:
    data = HERE / "data"
    data.mkdir(exist_ok=True)
    write_lines(data / "passages.jsonl", ({"title": title, "text": text} for title, text in made.passages.items()))
    numbers = {title: number for number, title in enumerate(made.passages, 1)}
    for name, questions in (("train", made.train), ("held_out", made.held_out)):
        write_lines(HERE / f"{name}.jsonl", (task(name, place, it, numbers) for place, it in enumerate(questions)))
    print(f"{len(made.passages)} passages, {len(made.train)} questions to learn from, {len(made.held_out)} held out")
    for name, questions in (("demonstrations", made.train), ("labelled", made.shown)):
        conversations = [conversation(question, numbers) for question in questions]
        found = [{"messages": messages, "tools": tools()} for messages in conversations if messages is not None]
        write_lines(data / f"{name}.jsonl", found)
        print(f"{name}.jsonl: the conversations of {len(found)} of {len(questions)} questions")


def task(name: str, place: int, question: Question, numbers: dict[str, int]) -> dict:
    expected = {"answer": question.answer, "passages": [numbers[title] for title in question.passages]}
    return {"id": f"{name}-{place}", "input": question.text, "expected": expected}


def read(path: Path) -> Iterable[dict]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", type=Path, help="a folder with questions.jsonl and corpus.jsonl")
    source.add_argument("--hub", type=int, metavar="COUNT", help="so many questions from the hub")
    arguments = parser.parse_args()
    if arguments.data:
        write(hotpot_folder(arguments.data))
    elif arguments.hub:
        write(hotpot_hub(arguments.hub))
    else:
        write(small_set())
