"""Whatever stands in a field of an export, the other traces are read, and what is kept can be read again."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from importing_files import example

from agentlightning.importers.base import Importer, Row, Unread
from agentlightning.records import decode, encode
from agentlightning.store import Recorded
from agentlightning_import.langfuse import Langfuse
from agentlightning_import.langsmith import LangSmith
from agentlightning_import.openai import OpenAI

ODD: list[Any] = [None, "", "odd", 12, -1.5, True, [], ["a", 1], {}, {"a": {"b": []}}, [[]], [None]]
EXAMPLES = {
    "langfuse_traces.json": Langfuse,
    "langfuse_observations.jsonl": Langfuse,
    "langfuse_scores.jsonl": Langfuse,
    "langsmith_runs.jsonl": LangSmith,
    "langsmith_feedback.jsonl": LangSmith,
    "openai_finetuning.jsonl": OpenAI,
    "openai_preferences.jsonl": OpenAI,
    "openai_eval_items.jsonl": OpenAI,
    "openai_completions.jsonl": OpenAI,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in a record."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def with_odd(records: list[Any], path: tuple[Any, ...], odd: Any) -> list[Any]:
    changed = copy.deepcopy(records)
    target: Any = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = odd
    return changed


def read(kind: type[Importer], records: list[Any]) -> tuple[list[Any], int]:
    """What came of records, as a store would give it back; and how much was told to be unread."""
    unread = Unread()
    rows = [Row(f"a:{index}", json.dumps(record).encode()) for index, record in enumerate(records)]
    found = [
        decode(encode(one), Recorded) if isinstance(one, Recorded) else one for one in kind("run", unread).read(rows)
    ]
    return found, sum(one.count for one in unread.counts)


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_value_of_any_field_ends_an_import_or_loses_another_trace(name: str) -> None:
    kind, records = EXAMPLES[name], example(name)[-3:]
    whole, _ = read(kind, records)
    for number, path in enumerate(places(records[0], (0,))):
        odd = ODD[number % len(ODD)]
        found, unread = read(kind, with_odd(records, path, odd))
        assert len(found) >= len(whole) - 2
        assert len(found) == len(whole) or unread or name in MERGED, (path, odd)


MERGED = ("langfuse_observations.jsonl", "langfuse_scores.jsonl", "langsmith_runs.jsonl", "langsmith_feedback.jsonl")
"""Files whose records belong to one trace: with another trace's id there is one more, or one less."""
