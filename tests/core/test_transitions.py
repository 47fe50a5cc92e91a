"""Spans → training rows."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning.records import Generation, Reward, Rollout, Span
from agentlightning.training_rows import RolloutRows, TrainingRow
from agentlightning.transitions import build_rows

ROLLOUT = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1)


def call(index: int, prompt: list[int], response: list[int], **changes) -> Span:
    """An ``llm`` span that the policy answered with exact tokens."""
    generation = {
        "provenance": "exact",
        "policy": "policy",
        "policy_version": 0,
        "prompt_ids": np.array(prompt, np.int32),
        "response_ids": np.array(response, np.int32),
        "logprobs": np.linspace(-1, -2, len(response)).astype(np.float32),
    } | changes.pop("generation", {})
    fields = {"agent": "writer", "started_at": float(index), "ended_at": index + 0.5} | changes
    return Span(
        id=f"s{index}",
        rollout_id="r",
        index=index,
        kind="llm",
        name="chat",
        generation=Generation(**generation),
        **fields,
    )


def rows_of(*spans: Span) -> list[TrainingRow]:
    return build_rows(ROLLOUT, spans)


def test_a_call_that_extends_the_last_one_continues_its_row() -> None:
    (row,) = rows_of(call(0, [1, 2], [3, 4]), call(1, [1, 2, 3, 4, 5], [6]))

    assert row.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.mask.tolist() == [False, False, True, True, False, True]
    assert row.logprobs.tolist() == [0, 0, -1, -2, 0, -1]
    assert [(made.span_id, made.start, made.end) for made in row.transitions] == [("s0", 2, 4), ("s1", 5, 6)]


@pytest.mark.parametrize(
    "prompt", [[1, 2, 9, 4, 5], [1, 2, 3], [7]], ids=["an edited token", "a cut answer", "another conversation"]
)
def test_a_call_that_does_not_extend_token_for_token_begins_a_new_row(prompt: list[int]) -> None:
    rows = rows_of(call(0, [1, 2], [3, 4]), call(1, prompt, [6]))

    assert [len(row.transitions) for row in rows] == [1, 1]
    assert RolloutRows(rollout=ROLLOUT, rows=rows).prefix_breaks == 1


def test_interleaved_calls_find_their_own_row() -> None:
    rows = rows_of(
        call(0, [1], [2]),
        call(1, [8], [9]),
        call(2, [1, 2, 3], [4]),
        call(3, [8, 9, 7], [6]),
        call(4, [1, 2, 3, 4], [5]),
    )

    assert [row.token_ids.tolist() for row in rows] == [[1, 2, 3, 4, 5], [8, 9, 7, 6]]


def test_the_longest_row_that_is_extended_is_the_one_continued() -> None:
    rows = rows_of(call(0, [1], [2]), call(1, [1, 2, 3], [4]), call(2, [1], [2]), call(3, [1, 2, 3, 4], [5]))

    assert [row.token_ids.tolist() for row in rows] == [[1, 2, 3, 4, 5], [1, 2]]


def test_agents_have_rows_of_their_own_even_where_tokens_extend() -> None:
    writer, critic = rows_of(call(0, [1], [2]), call(1, [1, 2, 3], [4], agent="critic"))

    assert (writer.agent, critic.agent) == ("writer", "critic")
    assert critic.mask.tolist() == [False, False, False, True]


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"policy": "other"}, {"policy_version": 1}], ids=str)
def test_a_call_sampled_otherwise_or_by_another_policy_or_version_begins_a_new_row(change: dict[str, Any]) -> None:
    first, second = rows_of(call(0, [1], [2]), call(1, [1, 2], [3], generation=change))

    assert (first.temperature, first.policy, first.policy_version) == (1.0, "policy", 0)
    assert (second.temperature, second.policy, second.policy_version) == tuple(
        ({"temperature": 1.0, "policy": "policy", "policy_version": 0} | change).values()
    )
    assert second.transitions[0].policy_version == second.policy_version
    assert RolloutRows(rollout=ROLLOUT, rows=[first, second]).prefix_breaks == ("temperature" in change)


@pytest.mark.parametrize(
    "change",
    [{"provenance": "text"}, {"policy": None}, {"logprobs": None}, {"response_ids": np.empty(0, np.int32)}],
    ids=["tokens not exact", "another model wrote it", "no logprobs", "nothing written"],
)
def test_what_the_policy_did_not_write_is_in_no_row(change: dict[str, Any]) -> None:
    assert rows_of(call(0, [1], [2], generation=change)) == []


def rewarded(*rewards: Reward) -> list[float | None]:
    """What the two calls of a rollout, which began at 0 and 1 s and lasted half a second, were given."""
    rollout = msgspec.structs.replace(ROLLOUT, rewards=list(rewards))
    (row,) = build_rows(rollout, [call(0, [1], [2]), call(1, [1, 2], [3])])
    return [transition.reward for transition in row.transitions]


def test_a_step_reward_belongs_to_its_call_else_to_the_last_call_before_it() -> None:
    assert rewarded(
        Reward(name="tool", value=0.5, span_id="a tool", at=1.0),
        Reward(name="own", value=2.0, weight=0.5, span_id="s1", at=0.0),
        Reward(name="scored", value=9.0, at=9.0),
    ) == [0.5, 1.0]


def test_a_step_reward_given_before_the_first_call_is_no_transitions() -> None:
    assert rewarded(Reward(name="early", value=1.0, span_id="a tool", at=-1.0)) == [None, None]


def tool(index: int, **fields: Any) -> Span:
    """What a tool did, between two calls or in the middle of one."""
    return Span(id=f"s{index}", rollout_id="r", index=index, kind="tool", name="search", **fields)


def asking(*ids: str) -> dict[str, Any]:
    """An answer that asks for these calls of tools."""
    return {"response": {"role": "assistant", "tool_calls": [{"id": id, "type": "function"} for id in ids]}}


def given_to(spans: list[Span], *named: str, at: float = 99.0) -> list[float | None]:
    """What the calls among these spans were given, after the rollout, for the spans that are named."""
    rewards = [Reward(name=name, value=1.0, span_id=name, at=at) for name in named]
    rows = build_rows(msgspec.structs.replace(ROLLOUT, rewards=rewards), spans)
    made = sorted((made for row in rows for made in row.transitions), key=lambda made: made.index)
    return [transition.reward for transition in made]


def test_a_step_reward_for_a_tool_belongs_to_the_call_that_asked_for_it_whenever_it_is_given() -> None:
    by_id = [
        call(0, [1], [2], generation=asking("a", "b")),
        call(1, [9], [8], generation=asking("c")),
        tool(2, started_at=2.0, ended_at=3.0, attributes={"gen_ai.tool.call.id": "b"}),
        call(3, [5], [6]),
    ]
    assert given_to(by_id, "s2") == [1.0, None, None]
    without = [call(0, [1], [2]), tool(1, started_at=1.0, ended_at=1.5), call(2, [1, 2], [3])]
    assert given_to(without, "s1") == [1.0, None]
    before = [tool(0, started_at=-1.0, ended_at=-0.5), call(1, [1], [2])]
    assert given_to(before, "s0") == [None]


def test_without_an_id_it_is_rather_the_last_call_of_the_same_agent() -> None:
    spans = [call(0, [1], [2]), call(1, [3], [4], agent="critic"), tool(2, started_at=2.0, agent="writer")]
    assert given_to(spans, "s2") == [1.0, None]


def test_a_step_reward_for_an_agent_belongs_to_the_last_call_in_it_or_to_the_last_one_when_it_was_given() -> None:
    agent = Span(id="agent", rollout_id="r", index=0, kind="agent", name="writer", started_at=0.0, ended_at=3.0)
    spans = [agent, call(1, [1], [2]), call(2, [1, 2], [3]), call(4, [1, 2, 3], [4])]
    assert given_to(spans, "agent") == [None, 1.0, None]
    assert given_to(spans, "agent", at=1.6) == [1.0, None, None]


def test_a_step_reward_for_another_models_call_is_no_transitions() -> None:
    spans = [call(0, [1], [2]), call(1, [3], [4], generation={"policy": None})]
    assert given_to(spans, "s1") == [None]


def test_of_calls_made_at_once_the_one_that_ended_last_takes_a_step_reward() -> None:
    reward = Reward(name="tool", value=1.0, span_id="a tool", at=9.0)
    rollout = msgspec.structs.replace(ROLLOUT, rewards=[reward])
    slow, quick = build_rows(rollout, [call(0, [1], [2], ended_at=8.0), call(1, [3], [4])])
    assert [row.transitions[0].reward for row in (slow, quick)] == [1.0, None]


def test_spans_out_of_order_give_transitions_in_the_order_of_the_calls() -> None:
    (row,) = rows_of(call(1, [1, 2, 3], [4]), call(0, [1], [2]))

    assert [transition.span_id for transition in row.transitions] == ["s0", "s1"]


def test_an_advantage_is_a_transitions_own_and_finite() -> None:
    (row,) = rows_of(call(0, [1, 2], [3, 4]), call(1, [1, 2, 3, 4, 5], [6]))
    np.testing.assert_array_equal(row.advantages, [0, 0, np.nan, np.nan, 0, np.nan])

    row.set_advantage(row.transitions[1], -0.5)
    np.testing.assert_array_equal(row.advantages, [0, 0, np.nan, np.nan, 0, -0.5])
    with pytest.raises(ValueError, match="the advantage of a transition of rollout r is inf"):
        row.set_advantage(row.transitions[0], float("inf"))


# Properties, for any interleaving of calls.

TOKENS = st.integers(0, 2)
"""So few that prompts often extend one another by chance, too."""


@st.composite
def conversations(draw: st.DrawFn) -> list[Span]:
    """Calls that go on from any earlier one, whole, cut, or not at all; of two agents, versions and temperatures."""
    spans: list[Span] = []
    for index in range(draw(st.integers(1, 8))):
        before: list[int] = []
        if spans and draw(st.booleans()):
            earlier = draw(st.sampled_from(spans)).generation
            whole = [*earlier.prompt_ids.tolist(), *earlier.response_ids.tolist()]
            before = whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole
        prompt = before + draw(st.lists(TOKENS, min_size=not before, max_size=3))
        response = draw(st.lists(TOKENS, min_size=1, max_size=3))
        sampled = {"policy_version": draw(st.integers(0, 1)), "temperature": draw(st.sampled_from([1.0, 0.5]))}
        spans.append(call(index, prompt, response, agent=draw(st.sampled_from("ab")), generation=sampled))
        spans[-1].generation.logprobs = -(index + 1) - np.arange(len(response), dtype=np.float32) / 8
    return spans


@given(conversations(), st.randoms(use_true_random=False))
def test_no_token_is_lost_doubled_or_moved(spans: list[Span], random: Random) -> None:
    shuffled = random.sample(spans, len(spans))
    rows = build_rows(ROLLOUT, shuffled)

    by_span = {span.id: span for span in spans}
    transitions = [(row, made) for row in rows for made in row.transitions]
    assert sorted(made.span_id for _, made in transitions) == sorted(by_span)
    for row, made in transitions:
        span = by_span[made.span_id]
        wrote = span.generation
        assert row.token_ids[: made.start].tolist() == wrote.prompt_ids.tolist()
        assert row.token_ids[made.start : made.end].tolist() == wrote.response_ids.tolist()
        assert row.logprobs[made.start : made.end].tolist() == wrote.logprobs.tolist()
        assert row.mask[made.start : made.end].all()
        writer = (span.agent, wrote.policy, wrote.policy_version, wrote.temperature)
        assert (row.agent, row.policy, row.policy_version, row.temperature) == writer
        assert (made.agent, made.policy, made.policy_version) == writer[:3]
    for row in rows:
        assert {len(row.mask), len(row.logprobs), len(row.advantages)} == {len(row.token_ids)}
        assert row.transitions[-1].end == len(row.token_ids)
        assert row.trained_tokens == sum(made.end - made.start for made in row.transitions)
        assert not row.logprobs[~row.mask].any()
        assert not row.advantages[~row.mask].any()
    assert [row.token_ids.tolist() for row in rows] == [row.token_ids.tolist() for row in build_rows(ROLLOUT, spans)]


@given(conversations())
def test_a_new_row_begins_only_where_nothing_is_extended(spans: list[Span]) -> None:
    for end in range(1, len(spans) + 1):
        rows = build_rows(ROLLOUT, spans[:end])
        made = rows[-1].transitions
        if len(rows) == 1 or made != [made[0]] or made[0].span_id != spans[end - 1].id:
            continue
        for row in rows[:-1]:
            same = (row.agent, row.policy_version, row.temperature) == (
                rows[-1].agent, rows[-1].policy_version, rows[-1].temperature
            )  # fmt: skip
            prompt = rows[-1].token_ids[: made[0].start]
            assert not (same and prompt[: len(row.token_ids)].tolist() == row.token_ids.tolist())
