"""A stream is read the same however it is cut, and says the same whichever way its chunks are joined."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentlightning_openai.stream import CompletionJoiner
from agentlightning_server.gateway.chunks import TextChunks
from agentlightning_server.gateway.events import EventSplitter, data_of, with_data

LINES = st.lists(st.sampled_from([b"data: {}", b"event: a", b": ping", b"data:x", b"id: 1"]), min_size=1, max_size=3)
TEXT = st.text(max_size=3)


@given(st.lists(LINES, max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(0, 200)), st.binary())
def test_events_are_the_same_wherever_a_stream_is_cut(
    written: list[list[bytes]], newline: bytes, cuts: list[int], rest: bytes
) -> None:
    events = [newline.join([*lines, b"", b""]) for lines in written]
    rest = rest.replace(b"\n", b"").replace(b"\r", b"")
    whole = b"".join(events) + rest
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    splitter = EventSplitter()
    found = [event for start, stop in itertools.pairwise(places) for event in splitter.split(whole[start:stop])]
    assert found == events
    assert splitter.rest == rest


@given(LINES, st.sampled_from([b"\n", b"\r\n"]))
def test_an_event_that_says_something_else_keeps_its_other_lines(lines: list[bytes], newline: bytes) -> None:
    event = newline.join([*lines, b"", b""])
    changed = with_data(event, b"new")
    assert data_of(changed) == b"new"
    kept = [line for line in lines if not line.startswith(b"data:")]
    assert [line for line in changed.splitlines() if line and not line.startswith(b"data:")] == kept


@st.composite
def chunks(draw: st.DrawFn) -> dict[str, Any]:
    """A chunk of text as vLLM writes it, with what it may leave out."""
    token = st.fixed_dictionaries({"token": TEXT, "logprob": st.floats(-9, 0), "bytes": st.none()})
    choice: dict[str, Any] = {"index": draw(st.integers(0, 1)), "delta": {"content": draw(TEXT)}}
    if draw(st.booleans()):
        choice["delta"]["role"] = "assistant"
    if draw(st.booleans()):
        choice["finish_reason"] = None
    if draw(st.booleans()):
        choice["token_ids"] = draw(st.none() | st.lists(st.integers(0, 9), max_size=2))
    if draw(st.booleans()):
        choice["logprobs"] = draw(
            st.none() | st.fixed_dictionaries({"content": st.none() | st.lists(token, max_size=2)})
        )
    return {"id": "i", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


@given(st.lists(chunks(), max_size=8))
def test_a_row_of_text_chunks_says_what_its_chunks_say(stream: list[dict[str, Any]]) -> None:
    one_by_one, joined = CompletionJoiner(), CompletionJoiner()
    row = TextChunks(joined)
    for chunk in stream:
        one_by_one.add(chunk)
        shown = row.take(json.dumps(chunk).encode())
        assert shown is not None
        [choice] = chunk["choices"]
        expected = {**choice, **({"logprobs": None} if "logprobs" in choice else {})}
        expected.pop("token_ids", None)
        assert json.loads(shown) == {**chunk, "choices": [expected]}
    row.join()
    assert _without_empty(joined) == _without_empty(one_by_one)


def _without_empty(joiner: CompletionJoiner) -> Any:
    """What was joined; no tokens and an empty list of them are the same."""
    answer = joiner.answer()
    return [(it.message, it.token_ids or None, it.logprobs or None) for it in answer.choices], answer.id, answer.model
