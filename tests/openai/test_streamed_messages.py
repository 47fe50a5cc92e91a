"""What a streamed message says is what the whole message would have said, however an endpoint cuts it up."""

from __future__ import annotations

import pytest
from stub_answers import stream

MESSAGES = [{"role": "user", "content": "Hi"}]
ADD = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
NOW = {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def chunk(delta: object, *, index: int = 0, **choice: object) -> dict[str, object]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": None, **choice}]}


def call(name: str | None = None, arguments: str | None = None, **fields: object) -> dict[str, object]:
    """A delta with a piece of one tool call."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{**fields, "function": function}]}


@pytest.fixture
def read(rollout, stub, client):
    """The message that is recorded of these deltas."""

    def read(*deltas: object) -> dict[str, object]:
        stub.reply(stream(*(chunk(delta) for delta in deltas)))
        with rollout():
            list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
        return rollout.span.generation.response

    return read


def without_ids(calls: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**call, "id": None} for call in calls]


TWO_CALLS = {
    "whole calls at index 0": [call("add", '{"x": 1}', index=0, id="a"), call("now", "{}", index=0, id="b")],
    "whole calls without an index": [call("add", '{"x": 1}', id="a"), call("now", "{}", id="b")],
    "an index of null": [call("add", '{"x": 1}', index=None, id="a"), call("now", "{}", index=None, id="b")],
    "in one chunk": [{"tool_calls": [{"index": 0, **ADD}, {"index": 0, **NOW}]}],
    "in one chunk without an index": [{"tool_calls": [ADD, NOW]}],
    "the id on the first piece only": [
        call("add", "", index=0, id="a"),
        call(None, '{"x"', index=0),
        call(None, ": 1}", index=0),
        call("now", "{}", index=1, id="b"),
    ],
    "the id on every piece": [
        call("add", '{"x"', index=0, id="a"),
        call(None, ": 1}", index=0, id="a"),
        call("now", "{", index=0, id="b"),
        call(None, "}", index=0, id="b"),
    ],
    "an empty id on later pieces": [
        call("add", '{"x"', index=0, id="a", type="function"),
        call("", ": 1}", index=0, id="", type=""),
        call("now", "{}", index=1, id="b"),
    ],
    "the id on a later piece": [
        call("add", '{"x"', index=0),
        call(None, ": 1}", index=0, id="a"),
        call("now", "{}", index=1, id="b"),
    ],
    "another id on every piece": [
        call("add", '{"x"', index=0, id="a"),
        call(None, ": 1}", index=0, id="a2"),
        call("now", "{}", index=1, id="b"),
    ],
    "the name on every piece": [
        call("add", '{"x"', index=0, id="a"),
        call("add", ": 1}", index=0, id="a"),
        call("now", "{", index=1, id="b"),
        call("now", "}", index=1),
    ],
    "the name in pieces": [
        call("a", "", index=0, id="a"),
        call("dd", "", index=0),
        call(None, '{"x": 1}', index=0),
        call("now", "{}", index=1, id="b"),
    ],
    "pieces that take turns": [
        call("add", "", index=0, id="a"),
        call("now", "", index=1, id="b"),
        call(None, '{"x"', index=0),
        call(None, "{", index=1),
        call(None, ": 1}", index=0),
        call(None, "}", index=1),
    ],
    "pieces that take turns by id": [
        call("add", '{"x"', id="a"),
        call("now", "{", id="b"),
        call(None, ": 1}", id="a"),
        call(None, "}", id="b"),
    ],
    "the second before the first": [call("now", "{}", index=1, id="b"), call("add", '{"x": 1}', index=0, id="a")],
    "later pieces without an index": [
        call("add", "", index=0, id="a"),
        call(None, '{"x": 1}'),
        call("now", "", index=1, id="b"),
        call(None, "{}"),
    ],
}


@pytest.mark.parametrize("deltas", TWO_CALLS.values(), ids=TWO_CALLS)
def test_two_tool_calls_are_two(read, deltas) -> None:
    assert read(*deltas)["tool_calls"] == [ADD, NOW]


@pytest.mark.parametrize("index", [{}, {"index": None}, {"index": 0}], ids=["no index", "null", "0"])
@pytest.mark.parametrize("name", ["now", "add"], ids=["two tools", "one tool twice"])
def test_two_tool_calls_without_ids_are_two(read, name, index) -> None:
    message = read(call("add", '{"x": 1}', **index), call(name, "{}", **index))
    second = {"id": None, "type": "function", "function": {"name": name, "arguments": "{}"}}
    assert message["tool_calls"] == [*without_ids([ADD]), second]


def test_two_calls_of_one_tool_with_ids_of_their_own_are_two(read) -> None:
    message = read(call("add", '{"x": 1}', index=0, id="a"), call("add", '{"x": 2}', index=0, id="b"))
    assert [(call["id"], call["function"]["arguments"]) for call in message["tool_calls"]] == [
        ("a", '{"x": 1}'),
        ("b", '{"x": 2}'),
    ]


def test_a_call_without_arguments_is_one(read) -> None:
    message = read(call("now", "", index=0, id="b"), call(None, "", index=0), {"content": ""})
    assert message["tool_calls"] == [{"id": "b", "type": "function", "function": {"name": "now", "arguments": ""}}]


def test_what_a_vendor_adds_to_a_call_is_kept(read) -> None:
    """Gemini's thought signatures, without which the next request is refused."""
    signature = {"google": {"thought_signature": "c2ln"}}
    message = read(
        call("add", '{"x"', index=0, id="a", extra_content=signature),
        call(None, ": 1}", index=0, id="a", extra_content=signature),
    )
    assert message["tool_calls"] == [{**ADD, "extra_content": signature}]


def test_a_custom_tools_input_is_joined(read) -> None:
    message = read(
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "code", "input": "1 "}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "+ 1"}}]},
    )
    assert message["tool_calls"] == [{"id": "a", "type": "custom", "custom": {"name": "code", "input": "1 + 1"}}]


def test_a_legacy_function_call_is_joined(read) -> None:
    message = read(
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": ""}},
        {"function_call": {"arguments": '{"x"'}},
        {"function_call": {"arguments": ": 1}"}},
    )
    assert message["function_call"] == {"name": "add", "arguments": '{"x": 1}'}


def reasoning(text: str | None = None, **fields: object) -> dict[str, object]:
    entry = {"type": "reasoning.text", **({"text": text} if text is not None else {}), **fields}
    return {"reasoning": text, "reasoning_details": [entry]}


@pytest.mark.parametrize("place", [{}, {"index": 0}], ids=["no index", "index"])
def test_reasoning_details_are_joined(read, place) -> None:
    message = read(
        reasoning("let ", format="v1", **place),
        reasoning("me ", format="v1", **place),
        reasoning("see", format="v1", **place),
        reasoning(signature="sig", format="v1", **place),
        {"content": "7"},
    )
    details = [{"type": "reasoning.text", "text": "let me see", "signature": "sig", "format": "v1", **place}]
    assert message == {
        "role": "assistant",
        "content": "7",
        "reasoning": "let me see",
        "reasoning_details": details,
    }


def test_reasoning_details_of_several_kinds_stay_apart(read) -> None:
    encrypted = [{"type": "reasoning.encrypted", "data": f"d{id}", "id": id, "index": 0} for id in ("a", "b")]
    message = read(reasoning("see", index=0), *({"reasoning_details": [entry]} for entry in encrypted))
    assert message["reasoning_details"] == [{"type": "reasoning.text", "text": "see", "index": 0}, *encrypted]


def test_a_thought_ends_with_its_signature(read) -> None:
    def block(thinking: str, **fields: object) -> dict[str, object]:
        return {"thinking_blocks": [{"type": "thinking", "thinking": thinking, **fields}]}

    message = read(block("a"), block("b"), block("", signature="1"), block("c"), block("", signature="2"))
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "ab", "signature": "1"},
        {"type": "thinking", "thinking": "c", "signature": "2"},
    ]


def test_annotations_are_kept_each(read) -> None:
    cited = [{"type": "url_citation", "url_citation": {"url": f"https://{name}", "start_index": 0}} for name in "ab"]
    message = read({"content": "see"}, {"annotations": cited[:1]}, {"annotations": cited[1:]})
    assert message == {"role": "assistant", "content": "see", "annotations": cited}


def test_audio_is_joined(read) -> None:
    message = read(
        {"audio": {"id": "audio_1", "transcript": "He", "data": "AAAA"}},
        {"audio": {"transcript": "llo", "data": "AAAA"}},
        {"audio": {"expires_at": 1700000000}},
    )
    assert message["audio"] == {
        "id": "audio_1",
        "transcript": "Hello",
        "data": "AAAAAAAA",
        "expires_at": 1700000000,
    }


def test_images_are_kept_each(read) -> None:
    images = [{"type": "image_url", "image_url": {"url": f"data:{place}"}, "index": place} for place in range(2)]
    assert read(*({"images": [image]} for image in images))["images"] == images


def test_content_in_parts_is_joined(read) -> None:
    """Mistral's thoughts are parts of the content, and its answers strings."""

    def thought(text: str) -> dict[str, object]:
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    assert read(thought("let me "), thought("see"), {"content": "The "}, {"content": "answer"})["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "let me see"}]},
        {"type": "text", "text": "The answer"},
    ]


def test_fields_that_nobody_knows_are_kept(read) -> None:
    message = read(
        {"content": "a", "vendor": {"list": [1], "name": "x", "deep": {"note": None}}, "words": ["a"], "thought": "ha"},
        {"content": "b", "vendor": {"list": [2], "name": "x", "deep": {"more": True}}, "words": ["b"], "thought": "ha"},
    )
    assert message == {
        "role": "assistant",
        "content": "ab",
        "vendor": {"list": [1, 2], "name": "x", "deep": {"note": None, "more": True}},
        "words": ["a", "b"],
        "thought": "haha",
    }


def test_the_agents_chunks_are_not_changed(rollout, stub, client) -> None:
    deltas = [{"vendor": {"list": [1]}}, {"vendor": {"list": [2]}}]
    stub.reply(stream(*(chunk(delta) for delta in deltas)))
    with rollout():
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert [chunk.choices[0].delta.vendor for chunk in chunks] == [{"list": [1]}, {"list": [2]}]


def test_choices_that_take_turns_are_kept_apart(rollout, stub, client) -> None:
    deltas = [(1, "b1"), (0, "a1"), (1, "b2"), (0, "a2")]
    stub.reply(stream(*(chunk(call("add", text, id=text[0]), index=index) for index, text in deltas)))
    with rollout():
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2))
    second, first = (span.generation.response["tool_calls"] for span in rollout.spans)
    assert [call["function"]["arguments"] for call in (*first, *second)] == ["a1a2", "b1b2"]
