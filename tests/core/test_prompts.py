"""Prompts: swapped in requests with demonstrations after them, asked for by name, found in what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import agentlightning as agl
from agentlightning import semconv
from agentlightning.prompts import FoundPrompt, prompts_in
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Generation, Prompt, Span
from agentlightning.system_prompts import swap

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "2 + 3?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 1}'}}
SHOWN: list[dict[str, Any]] = [
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "assistant", "content": "2."},
]
SHOWN_ITEMS = [
    {"role": "user", "content": "1 + 1?"},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1, "b": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "2"},
    {"role": "assistant", "content": "2."},
]


def shows(**fields: Any) -> Prompt:
    return Prompt(name="p", demonstrations=(SHOWN,), **fields)


@pytest.mark.parametrize(
    ("prompt", "before", "after"),
    [
        pytest.param(shows(), [SYSTEM, ASKED], [SYSTEM, *SHOWN, ASKED], id="after the system prompt"),
        pytest.param(shows(), [ASKED], [*SHOWN, ASKED], id="in front where there is none"),
        pytest.param(
            shows(template="Think."),
            [SYSTEM, ASKED],
            [{"role": "system", "content": "Think."}, *SHOWN, ASKED],
            id="with another system prompt",
        ),
        pytest.param(shows(replaces="Be brief."), [SYSTEM, ASKED], [SYSTEM, *SHOWN, ASKED], id="for that prompt"),
        pytest.param(shows(replaces="Be long."), [SYSTEM, ASKED], [SYSTEM, ASKED], id="not for another prompt"),
    ],
)
def test_demonstrations_come_between_the_system_prompt_and_the_conversation(
    prompt: Prompt, before: Sequence[Any], after: Sequence[Any]
) -> None:
    assert swap({"messages": before}, "chat", [prompt]) == {"messages": after}


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ({"input": "2 + 3?"}, {"input": [*SHOWN_ITEMS, ASKED]}),
        ({"input": [SYSTEM, ASKED]}, {"input": [SYSTEM, *SHOWN_ITEMS, ASKED]}),
        (
            {"instructions": "Be brief.", "input": [ASKED]},
            {"instructions": "Be brief.", "input": [*SHOWN_ITEMS, ASKED]},
        ),
        ({"input": "And now?", "previous_response_id": "r1"}, {"input": "And now?", "previous_response_id": "r1"}),
    ],
)
def test_a_responses_request_gets_them_as_items(body: dict[str, Any], after: dict[str, Any]) -> None:
    assert swap(body, "responses", [shows()]) == after


def test_the_body_given_is_not_changed() -> None:
    body = {"messages": [SYSTEM, ASKED]}
    swap(body, "chat", [shows(template="Think.")])
    assert body == {"messages": [SYSTEM, ASKED]}


def recorded(spans: list[Span], *resources: AnyResource) -> Recorder:
    return Recorder("rollout", 1, lambda new: spans.extend(new), resources=list(resources))


def test_a_prompt_by_name_is_what_an_algorithm_tries_and_the_default_elsewhere() -> None:
    spans: list[Span] = []
    tried = Prompt(name="solve", agents=(), template="Solve {question} now.")
    assert agl.prompt("solve", "Solve {question}.") == "Solve {question}."
    with recording(recorded(spans, tried)) as recorder:
        assert agl.prompt("solve", "Solve {question}.") == "Solve {question} now."
        assert agl.prompt("check", "Is it right?") == "Is it right?"
        assert agl.prompt("check", "Is it right?") == "Is it right?"
    recorder.close()
    assert prompts_in(spans) == [
        FoundPrompt(name="check", text="Is it right?", calls=1),
        FoundPrompt(name="solve", text="Solve {question}.", calls=1),
    ]
    assert swap({"messages": [SYSTEM, ASKED]}, "chat", []) == {"messages": [SYSTEM, ASKED]}


def test_system_prompts_are_found_by_agent_the_most_used_first() -> None:
    def call(agent: str | None, text: str) -> Span:
        message = {"role": "system", "content": [{"type": "text", "text": text}]}
        generation = Generation(messages=[message, ASKED])
        return Span(id="s", rollout_id="r", kind="llm", name="chat", agent=agent, generation=generation)

    found = prompts_in([call("b", "One."), call("b", "Two."), call("b", "Two."), call("a", "Three.")])
    assert [(it.agent, it.text, it.calls) for it in found] == [("a", "Three.", 1), ("b", "Two.", 2), ("b", "One.", 1)]


def test_a_note_that_is_no_prompt_is_none() -> None:
    spans: list[Span] = []
    with recording(recorded(spans)) as recorder:
        agl.annotate("prompt", other=1)
    recorder.close()
    assert semconv.PROMPT_NAME not in spans[-1].attributes
    assert prompts_in(spans) == []
