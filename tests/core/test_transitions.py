"""Spans → transitions → sequences."""

import numpy as np
import pytest

from agentlightning.records import Generation, Reward, Rollout, Span
from agentlightning.transitions import build_trajectories, build_transitions

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


def sequences_of(*spans: Span):
    return [sequence for trajectory in build_trajectories(ROLLOUT, spans) for sequence in trajectory.sequences]


def test_a_call_that_extends_the_last_one_continues_its_sequence():
    (sequence,) = sequences_of(call(0, [1, 2], [3, 4]), call(1, [1, 2, 3, 4, 5], [6]))

    assert sequence.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert sequence.mask.tolist() == [False, False, True, True, False, True]
    assert sequence.logprobs.tolist() == [0, 0, -1, -2, 0, -1]
    assert sequence.spans == [(2, 4), (5, 6)]


@pytest.mark.parametrize(
    "prompt", [[1, 2, 9, 4, 5], [1, 2, 3], [7]], ids=["an edited token", "a cut answer", "another conversation"]
)
def test_a_call_that_does_not_extend_token_for_token_starts_a_new_sequence(prompt):
    (trajectory,) = build_trajectories(ROLLOUT, [call(0, [1, 2], [3, 4]), call(1, prompt, [6])])

    assert [len(sequence.transitions) for sequence in trajectory.sequences] == [1, 1]
    assert trajectory.breaks == 1


def test_interleaved_calls_find_their_own_sequence():
    sequences = sequences_of(
        call(0, [1], [2]),
        call(1, [8], [9]),
        call(2, [1, 2, 3], [4]),
        call(3, [8, 9, 7], [6]),
        call(4, [1, 2, 3, 4], [5]),
    )

    assert [sequence.token_ids.tolist() for sequence in sequences] == [[1, 2, 3, 4, 5], [8, 9, 7, 6]]


def test_the_longest_sequence_that_is_extended_is_the_one_continued():
    sequences = sequences_of(call(0, [1], [2]), call(1, [1, 2, 3], [4]), call(2, [1], [2]), call(3, [1, 2, 3, 4], [5]))

    assert [sequence.token_ids.tolist() for sequence in sequences] == [[1, 2, 3, 4, 5], [1, 2]]


def test_agents_have_trajectories_of_their_own_even_where_tokens_extend():
    writer, critic = build_trajectories(ROLLOUT, [call(0, [1], [2]), call(1, [1, 2, 3], [4], agent="critic")])

    assert (writer.agent, critic.agent) == ("writer", "critic")
    assert critic.sequences[0].mask.tolist() == [False, False, False, True]


def test_a_change_of_temperature_starts_a_new_sequence():
    assert len(sequences_of(call(0, [1], [2]), call(1, [1, 2], [3], generation={"temperature": 0.5}))) == 2


@pytest.mark.parametrize(
    "change",
    [{"provenance": "text"}, {"policy": None}, {"logprobs": None}, {"response_ids": np.empty(0, np.int32)}],
    ids=["tokens not exact", "another model wrote it", "no logprobs", "nothing written"],
)
def test_what_the_policy_did_not_write_is_no_transition(change):
    assert build_transitions(ROLLOUT, [call(0, [1], [2], generation=change)]) == []


def test_a_step_reward_belongs_to_its_call_else_to_the_last_call_before_it():
    rollout = Rollout(
        id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1,
        rewards=[
            Reward(name="tool", value=0.5, span_id="a tool", at=1.0),
            Reward(name="own", value=2.0, weight=0.5, span_id="s1", at=0.0),
            Reward(name="outcome", value=9.0, at=9.0),
        ],
    )  # fmt: skip
    first, second = build_transitions(rollout, [call(0, [1], [2]), call(1, [1, 2], [3])])

    assert (first.reward, second.reward) == (0.5, 1.0)


def test_spans_out_of_order_give_transitions_in_the_order_of_the_calls():
    later, earlier = call(1, [1, 2, 3], [4]), call(0, [1], [2])

    assert [transition.span_id for transition in build_transitions(ROLLOUT, [later, earlier])] == ["s0", "s1"]
