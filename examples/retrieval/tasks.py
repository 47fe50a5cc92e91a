"""Writes what the agent is trained on: train.jsonl, held_out.jsonl, and data/ with its library and demonstrations.

    python tasks.py                the small set: an invented world, from a seed
    python tasks.py --data FOLDER  HotpotQA from a folder with questions.jsonl and corpus.jsonl
    python tasks.py --hub 1000     HotpotQA from the hub, so many questions (needs `pip install datasets`)

No question of train.jsonl is in held_out.jsonl; in the small set no town, person or company is in both. Demonstrations
are conversations that answer questions of train.jsonl: for `sft`, and for `few_shot` as `labelled`.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from world import Names, Question, make_world

HERE = Path(__file__).parent
TRAIN, HELD_OUT, SEED = 256, 96, 0
HUB_NAME = "hotpotqa/hotpot_qa"
Passages = dict[str, str]
"""Texts by title."""


def small_set() -> tuple[Passages, list[Question], list[Question]]:
    """Two invented worlds in one library: one to learn from, and one that is held out."""
    rng = random.Random(SEED)
    names = Names(rng)
    worlds = [make_world(rng, names, size) for size in (24, 12)]
    passages = [item for world in worlds for item in world.passages.items()]
    rng.shuffle(passages)
    train, held_out = (rng.sample(world.questions, len(world.questions)) for world in worlds)
    return dict(passages), train[:TRAIN], held_out[:HELD_OUT]


def hotpot_folder(folder: Path) -> tuple[Passages, list[Question], list[Question]]:
    """HotpotQA in two files: questions with ``supporting_facts``, and the corpus with ``title`` and ``text``."""
    passages = {row["title"]: row["text"] for row in read(folder / "corpus.jsonl")}
    rows = list(read(folder / "questions.jsonl"))
    return passages, *split([hotpot_question(row, row["supporting_facts"]) for row in rows])


def hotpot_hub(count: int) -> tuple[Passages, list[Question], list[Question]]:
    """The first questions of HotpotQA's distractor setting, and all passages that come with them."""
    try:
        from datasets import load_dataset
    except ImportError:
        sys.exit("HotpotQA from the hub needs a package: pip install datasets; or name a folder with --data")
    passages: Passages = {}
    questions = []
    for row in load_dataset(HUB_NAME, "distractor", split=f"train[:{count}]"):
        for title, sentences in zip(row["context"]["title"], row["context"]["sentences"], strict=True):
            passages[title] = "".join(sentences)
        facts = zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"], strict=True)
        questions.append(hotpot_question(row, facts))
    return passages, *split(questions)


def hotpot_question(row: dict, facts: Iterable) -> Question:
    return Question(row["question"], row["answer"], list(dict.fromkeys(title for title, _ in facts)))


def split(questions: list[Question]) -> tuple[list[Question], list[Question]]:
    """A half to learn from and a half that is held out, at most 200."""
    random.Random(SEED).shuffle(questions)
    held_out = min(len(questions) // 2, 200)
    return questions[held_out:], questions[:held_out]


def conversation(question: Question, numbers: dict[str, int]) -> list[dict] | None:
    """How the agent would answer: it looks up what the question or a passage names, reads, and cites what it needed.
    None where a supporting passage is not found so."""
    from agent import librarian, library

    messages: list[dict] = [
        {"role": "system", "content": librarian.instructions},
        {"role": "user", "content": question.text},
    ]
    known = question.text
    for title in question.searches:
        if title not in known:
            return None
        found = library.search(title)
        if numbers[title] not in [passage.number for passage in found]:
            return None
        result = "\n".join(map(str, found))
        call = {"name": "search", "arguments": json.dumps({"query": title})}
        id = f"call_{len(messages)}"
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": id, "content": result},
        ]
        known += result
    cited = " ".join(f"[{numbers[title]}]" for title in question.searches)
    return [*messages, {"role": "assistant", "content": f"{question.answer} {cited}"}]


def tools() -> list[dict]:
    """The agent's tools as its model is shown them, in the order of the SDK's own fields."""
    from agent import librarian

    shown = []
    for tool in librarian.tools:
        function = {"name": tool.name, "parameters": tool.params_json_schema, "strict": tool.strict_json_schema}
        shown.append({"type": "function", "function": {**function, "description": tool.description}})
    return shown


def write(passages: Passages, train: list[Question], held_out: list[Question]) -> None:
    (HERE / "data").mkdir(exist_ok=True)
    write_lines(HERE / "data" / "passages.jsonl", ({"title": it, "text": text} for it, text in passages.items()))
    numbers = {title: number for number, title in enumerate(passages, 1)}
    for name, questions in (("train", train), ("held_out", held_out)):
        write_lines(HERE / f"{name}.jsonl", (task(name, place, it, numbers) for place, it in enumerate(questions)))
    shown = [it for it in (conversation(question, numbers) for question in train) if it is not None]
    write_lines(HERE / "data" / "demonstrations.jsonl", ({"messages": it, "tools": tools()} for it in shown))
    counts = f"{len(train)} and {len(held_out)} questions, {len(shown)} demonstrations"
    print(f"{len(passages)} passages, {counts}: train.jsonl, held_out.jsonl and data/ in {HERE}")


def task(name: str, place: int, question: Question, numbers: dict[str, int]) -> dict:
    expected = {"answer": question.answer, "passages": [numbers[title] for title in question.searches]}
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
        write(*hotpot_folder(arguments.data))
    elif arguments.hub:
        write(*hotpot_hub(arguments.hub))
    else:
        write(*small_set())
