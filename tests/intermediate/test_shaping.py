"""Potentials: whatever happens in a rollout, their differences add up to nothing."""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from intermediate.spans import TASK, Recording, a_rollout, call

from agentlightning.records import Reward
from agentlightning_intermediate.reward import Intermediate, IntermediateConfig

WEIGHTS = st.floats(-10, 10).filter(lambda weight: abs(weight) > 1e-6)
NAMES = ("tool_error", "tool_malformed", "tool_repeated", "answer_cut_off", "context_overflow", "handoff_circle")
CONFIGS = st.builds(
    IntermediateConfig,
    signals=st.dictionaries(st.sampled_from(NAMES), WEIGHTS, min_size=1),
    gamma=st.just(1.0) | st.floats(0.1, 1.0),
    most=st.integers(1, 4),
)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """Answers of one or two policies whose tools fail, are called in parallel, run late, or hand on."""
    run = Recording()
    for turn in range(draw(st.integers(0, 8))):
        agent = draw(st.sampled_from(["a", "b"]))
        names = draw(st.lists(st.sampled_from(["x", "y", "{"]), max_size=3))
        calls = [call(name, name if name == "{" else {}, f"{turn}-{place}") for place, name in enumerate(names)]
        reason = draw(st.sampled_from(["stop", "length"]))
        run.answer("", *calls, agent=agent, policy=draw(st.sampled_from(["one", "two"])), finish_reason=reason)
        for place, name in enumerate(names):
            late = draw(st.sampled_from([0.5, 3.0]))
            id = draw(st.sampled_from([f"{turn}-{place}", None]))
            fails = draw(st.sampled_from([None, "no"]))
            run.tool(name, id=id, fails=fails, ended_at=len(run.spans) + late, agent=agent)
        if draw(st.booleans()):
            run.handoff(agent, draw(st.sampled_from(["a", "b"])))
    return run


def chains_of(run: Recording, rewards: list[Reward]) -> dict[tuple[str, str], list[float]]:
    """The rewards of each call of a policy, in order, by policy and signal."""
    calls: dict[str, list[str]] = defaultdict(list)
    for span in run.spans:
        if span.generation is not None:
            calls[span.generation.policy].append(span.id)
    by_place = {(one.name, one.span_id): one.value for one in rewards}
    assert len(by_place) == len(rewards)
    names = {one.name for one in rewards}
    return {
        (policy, name): [by_place.get((name, id), 0.0) for id in ids] for policy, ids in calls.items() for name in names
    }


@given(recordings(), CONFIGS)
def test_the_discounted_sum_of_a_policys_step_rewards_is_nothing(run: Recording, config: IntermediateConfig) -> None:
    rewards = Intermediate(config)(a_rollout(), TASK, run.spans)

    for values in chains_of(run, rewards).values():
        total = sum(config.gamma**step * value for step, value in enumerate(values))
        assert total == pytest.approx(0, abs=1e-7)
        if config.gamma == 1.0:
            assert total == 0.0


@given(recordings(), CONFIGS)
def test_no_step_earns_more_than_all_that_can_happen(run: Recording, config: IntermediateConfig) -> None:
    for one in Intermediate(config)(a_rollout(), TASK, run.spans):
        assert one.value is not None
        assert abs(one.value) <= abs(config.signals[one.name]) * config.most + 1e-8


@given(recordings(), CONFIGS, st.randoms(use_true_random=False))
def test_the_order_in_which_spans_come_does_not_matter(
    run: Recording, config: IntermediateConfig, random: Random
) -> None:
    shuffled = list(run.spans)
    random.shuffle(shuffled)
    reward = Intermediate(config)

    assert reward(a_rollout(), TASK, shuffled) == reward(a_rollout(), TASK, run.spans)
