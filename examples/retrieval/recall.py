"""How often the search finds what a question needs: ``python recall.py``, with EMBEDDINGS for a search by meaning, too.

The query is the question itself: what needs a passage's name from another passage is not found so.
"""

import json
from statistics import mean

from agent import HERE, library

if __name__ == "__main__":
    lines = [line for name in ("train", "held_out") for line in (HERE / f"{name}.jsonl").read_text().splitlines()]
    tasks = [json.loads(line) for line in lines]
    shares = []
    for task in tasks:
        found = {passage.number for passage in library.search(task["input"])}
        shares.append(len(found & set(task["expected"]["passages"])) / len(task["expected"]["passages"]))
    every = mean(share == 1 for share in shares)
    print(f"{len(tasks)} questions: {mean(shares):.3f} of their passages found, all of them by {every:.3f}")
