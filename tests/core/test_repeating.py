"""Which call of a rollout gets which answer of the one that it repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agentlightning import semconv
from agentlightning.errors import DivergedError
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import Failure, Generation, Span


def call(index: int, *texts: str, replayed: bool = False, **fields: Any) -> Span:
    generation = Generation(
        messages=[{"role": "user", "content": text} for text in texts],
        provenance="exact",
        policy="policy",
        prompt_ids=np.arange(3, dtype=np.int32),
        response_ids=np.array([index], np.int32),
        logprobs=np.zeros(1, np.float32),
    )
    return Span(
        rollout_id="r",
        index=index,
        kind="llm",
        name="chat",
        attributes={semconv.REPLAYED: True} if replayed else {},
        generation=generation,
        **fields,
    )


def asked(*texts: str) -> Generation:
    generation = call(0, *texts).generation
    assert generation is not None
    return generation


def answer_to(answers: RecordedAnswers, *texts: str) -> int | None:
    found = answers.take(asked(*texts))
    return int(found.response_ids[0]) if found is not None and found.response_ids is not None else None


def test_the_first_calls_get_their_answers_and_the_rest_are_sampled() -> None:
    answers = RecordedAnswers([call(2, "a", "b"), call(0, "a"), call(5, "a", "b", "c")], 2)
    assert [answer_to(answers, "a"), answer_to(answers, "a", "b"), answer_to(answers, "a", "b", "c")] == [0, 2, None]


def test_calls_that_are_made_side_by_side_find_theirs_in_any_order() -> None:
    answers = RecordedAnswers([call(0, "left"), call(1, "right"), call(2, "both")], 2)
    assert [answer_to(answers, "right"), answer_to(answers, "left"), answer_to(answers, "both")] == [1, 0, None]
    answers = RecordedAnswers([call(0, "left"), call(1, "right")], 1)
    assert [answer_to(answers, "right"), answer_to(answers, "left")] == [None, 0]


def test_the_same_prompt_asked_twice_gets_both_answers_in_their_order() -> None:
    answers = RecordedAnswers([call(0, "a"), call(1, "a")], 2)
    assert [answer_to(answers, "a"), answer_to(answers, "a"), answer_to(answers, "a")] == [0, 1, None]


def test_the_ids_of_tool_calls_and_white_space_do_not_matter() -> None:
    def turn(id: str, text: str) -> list[dict[str, Any]]:
        called = {"id": id, "type": "function", "function": {"name": "add", "arguments": "{}"}}
        return [
            {"role": "assistant", "content": text, "tool_calls": [called]},
            {"role": "tool", "content": "3", "tool_call_id": id},
        ]

    before, now = call(0), asked()
    assert before.generation is not None
    before.generation.messages, now.messages = turn("call_1", "hm "), turn("call_9f", "hm")
    assert RecordedAnswers([before], 1).take(now) is before.generation


def test_another_call_before_all_is_repeated_has_diverged() -> None:
    answers = RecordedAnswers([call(0, "a"), call(1, "b")], 2)
    assert answer_to(answers, "a") == 0
    with pytest.raises(DivergedError, match="made no such call before its call 2"):
        answer_to(answers, "at 12:03")
    spans = [call(0, "a", replayed=True), call(1, "b", replayed=True)]
    found = answers.divergence(spans, Failure(type="redirect_failed", message="", fault="infrastructure"))
    assert found is not None
    assert found.type == "diverged"


def test_a_rollout_that_ends_early_has_diverged_unless_something_broke_it() -> None:
    answers = RecordedAnswers([call(0, "a"), call(1, "b")], 2)
    found = answers.divergence([call(0, "a", replayed=True)], None)
    assert found is not None
    assert "of 2 calls to repeat it made 1" in found.message
    broken = Failure(type="engine_unavailable", message="503", fault="infrastructure")
    assert answers.divergence([], broken) is None
    whole = [call(0, "a", replayed=True), call(1, "b", replayed=True), call(2, "c")]
    assert answers.divergence(whole, None) is None


def test_calls_of_no_policy_are_none_of_its_business() -> None:
    foreign = call(1, "b")
    assert foreign.generation is not None
    foreign.generation.policy = None
    answers = RecordedAnswers([call(0, "a"), foreign, call(2, "c")], 2)
    assert [answer_to(answers, "a"), answer_to(answers, "c")] == [0, 2]
