"""Whatever an agent puts into a record can be written, read and exported; integers of any size are what they were."""

from __future__ import annotations

import dataclasses
import enum
from collections import UserDict
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agentlightning.cli.export import plain
from agentlightning.codec import decode, encode, readable
from agentlightning.recording import Recorder, annotate, recording, reward, span
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task

pytestmark = pytest.mark.timeout(60)


def again(value: Any) -> Any:
    return decode(encode(value), Any)


@pytest.mark.parametrize(
    "number", [2**64, -(2**63) - 1, 2**70, -(2**70), 10**3000, -(10**3000)], ids=lambda n: n.bit_length()
)
def test_an_integer_beyond_64_bits_is_what_it_was(number: int) -> None:
    value = {"a": [number, {"maximum": number, "text": "½", "flag": True}]}
    assert again(value) == value


@given(st.integers())
def test_every_integer_is_what_it_was(number: int) -> None:
    assert again([number]) == [number]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plain_values_are_what_they_were(value: Any) -> None:
    # Texts of half surrogate pairs have no encoding: each half is a question mark.
    assert again(value) == _writable(value)


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_writable(item) for item in value]
    if isinstance(value, dict):
        return {_writable(key): _writable(item) for key, item in value.items()}
    return value


def test_a_generation_with_such_an_integer_keeps_its_tokens() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"maximum": 2**70}}}}}]
    ids = np.array([1, 2, 3], np.int32)
    span = Span(rollout_id="r", kind="llm", name="chat", generation=Generation(tools=tools, prompt_ids=ids))
    read = decode(encode(span), Span)
    assert read.generation is not None
    assert read.generation.tools == tools
    assert read.generation.prompt_ids is not None
    assert read.generation.prompt_ids.tolist() == [1, 2, 3]


class Text(str):
    pass


class Number(int):
    pass


class Colour(enum.Enum):
    RED = 2**70


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


class Model:
    """As pydantic's models are."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return self.fields


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def model_dump(self, mode: str) -> dict[str, Any]:
        raise RuntimeError("no dump")


class BrokenMapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")

    def __repr__(self) -> str:
        return "a broken mapping"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Text("a"), "a"),
        (Number(3), 3),
        (Number(2**70), 2**70),
        (np.int64(3), 3),
        (np.arange(3), [0, 1, 2]),
        (np.array([[0.5], [1.5]]), [[0.5], [1.5]]),
        (np.array(["a", None], object), ["a", None]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (UserDict(a=2**70), {"a": 2**70}),
        (Model(a=1), {"a": 1}),
        (Model(a=2**70), {"a": 2**70}),
        ({1, 2}, [1, 2]),
        ({"a": {2**70}}, {"a": [2**70]}),
        (Point(1), {"x": 1}),
        (Point(2**70), "Point(x=1180591620717411303424)"),
        (Colour.RED, "<Colour.RED: 1180591620717411303424>"),
        ({"a": Point(1), "b": 2**70}, {"a": {"x": 1}, "b": 2**70}),
        (b"\xff", b"\xff"),
        ("half \ud800", "half ?"),
        ({"\ud800": "\udfff"}, {"?": "?"}),
        ({1: 2, None: 3}, {1: 2, None: 3}),
        ({2**70: 1}, {"1180591620717411303424": 1}),
        (1j, "1j"),
        (Broken(), "<Broken>"),
        ([Broken(), 2**70], ["<Broken>", 2**70]),
        (BrokenMapping(a=2**70), "a broken mapping"),
        (10**5000, hex(10**5000)),
        (msgspec.msgpack.Ext(99, b"x"), b"x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_is_kept_in_a_plain_form_or_as_text(value: Any, kept: Any) -> None:
    assert again(value) == kept
    msgspec.json.encode(plain(again(value)))


def test_what_holds_itself_ends() -> None:
    value: list[Any] = [1]
    value += [value, {"again": value}]
    assert again(value)[0] == 1
    both: dict[str, Any] = {"x": 2**70}
    both["self"] = [both, both]
    assert again(both)["x"] == 2**70


@pytest.mark.parametrize("depth", [90, 150, 1500, 50_000])
def test_any_depth_is_written_read_and_exported(depth: int) -> None:
    value: Any = "innermost"
    for level in range(depth):
        value = {"deeper": value} if level % 2 else [value]
    rollout = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=value)
    msgspec.json.encode(plain(decode(encode(rollout), Rollout)))


def test_a_mapping_that_could_not_be_read_again_is_kept_as_text() -> None:
    assert readable({Point(1): "a"}) == "{Point(x=1): 'a'}"
    assert readable({"a": [Point(1)]}) == {"a": [Point(1)]}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
REWARDS = st.builds(Reward, name=TEXT, value=st.none() | NUMBERS, weight=NUMBERS, step=st.booleans(), at=NUMBERS)
STEP_REWARDS = st.builds(Reward, name=TEXT, value=st.none() | NUMBERS, span_id=TEXT, at=NUMBERS, reason=TEXT)
FAILURES = st.builds(Failure, type=TEXT, message=TEXT, exception=st.none() | TEXT, where=st.none() | TEXT)
GENERATIONS = st.builds(
    Generation,
    messages=st.lists(st.dictionaries(TEXT, PLAIN, max_size=2), max_size=2),
    response=st.none() | st.dictionaries(TEXT, PLAIN, max_size=2),
    provenance=st.sampled_from(["exact", "text"]),
    prompt_ids=arrays(np.int32, st.integers(0, 8)),
    response_ids=arrays(np.int32, st.integers(0, 8)),
    logprobs=arrays(np.float32, st.integers(0, 8), elements=st.floats(-30, 0, width=32)),
    policy_version=st.none() | st.integers(0, 2**40),
)
SPANS = st.builds(
    Span,
    rollout_id=TEXT,
    kind=st.sampled_from(["llm", "tool", "agent", "reward"]),
    name=TEXT,
    attributes=st.dictionaries(TEXT, PLAIN, max_size=3),
    generation=st.none() | GENERATIONS,
    reward=st.none() | REWARDS,
    failure=st.none() | FAILURES,
)
ROLLOUTS = st.builds(
    Rollout,
    id=TEXT,
    run_id=TEXT,
    group_id=TEXT,
    task_id=TEXT,
    purpose=st.sampled_from(["train", "evaluate", "check"]),
    status=st.sampled_from(["queued", "running", "succeeded", "failed", "cancelled"]),
    output=PLAIN,
    rewards=st.lists(REWARDS | STEP_REWARDS, max_size=3),
    failed_attempts=st.lists(FAILURES, max_size=2),
)
TASKS = st.builds(Task, id=TEXT, input=PLAIN, expected=PLAIN, metadata=st.dictionaries(TEXT, PLAIN, max_size=2))


@given(ROLLOUTS | SPANS | TASKS | REWARDS | FAILURES)
def test_every_record_is_what_it_was_and_its_arrays_are_of_their_types(record: Any) -> None:
    read = decode(encode(record), type(record))
    assert plain(read) == plain(record)
    generation = getattr(record, "generation", None)
    for name in ("prompt_ids", "response_ids", "logprobs") if generation is not None else ():
        assert getattr(read.generation, name).dtype == getattr(generation, name).dtype


def test_a_task_of_any_values_is_read_again() -> None:
    task = Task(id="t", input={"n": 2**70}, expected=np.float64(0.5), metadata={"deep": [[2**65]]})
    assert decode(encode(task), Task) == Task(id="t", input={"n": 2**70}, expected=0.5, metadata={"deep": [[2**65]]})


def test_what_is_noted_by_hand_under_any_name_is_read_again() -> None:
    spans: list[Span] = []
    with recording(Recorder("r", 1, spans.extend)):
        with span(7, agent=8):  # type: ignore[arg-type]
            annotate(9, value=2**70)  # type: ignore[arg-type]
        reward(1.0, 10, reason=11)  # type: ignore[arg-type]
    read = [decode(encode(each), Span) for each in spans]
    assert [each.name for each in read] == ["9", "7", "10"]
    assert read[0].attributes == {"value": 2**70}
    assert read[1].agent == "8"


def test_a_span_of_no_known_kind_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match=r"agl\.span 'plan': there is no kind 'thought'; there is: llm, tool, agent"):
        span("plan", kind="thought")  # type: ignore[arg-type]
