"""Spans → transitions → sequences. Pure functions.

Every call that a policy answered is one transition. A call whose prompt extends what is already there,
token for token, continues that sequence; the tokens between (a tool's result, the next question) are
masked out::

    call 1   prompt [A B]           wrote [c d]
    call 2   prompt [A B c d E]     wrote [f]
    ──────────────────────────────────────────────
    tokens   A B c d E f
    mask     · · x x · x

A call that extends no sequence (the agent edited, summarised or dropped messages) starts a new one. Each
call is matched against every sequence of its agent, the longest first, so parallel branches and
interleaved agents keep their own rows.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from agentlightning.records import Rollout, Sequence, Span, Trajectory, Transition


def build_transitions(rollout: Rollout, spans: Seq[Span]) -> list[Transition]:
    """One transition per model call that a policy answered with exact tokens, in the order of the calls.

    A step reward belongs to the call it was recorded under, else to the last call that had ended by then. The
    rewards of the outcome are left to credit assignment.
    """
    transitions: list[Transition] = []
    for span in sorted(spans, key=lambda span: span.index):
        said = span.generation
        if said is None or said.policy is None or said.provenance != "exact":
            continue
        if said.prompt_ids is None or said.response_ids is None or said.logprobs is None or not len(said.response_ids):
            continue
        transitions.append(
            Transition(
                rollout_id=rollout.id,
                span_id=span.id,
                agent=span.agent,
                index=len(transitions),
                prompt_ids=said.prompt_ids,
                response_ids=said.response_ids,
                logprobs=said.logprobs,
                temperature=said.temperature,
                policy=said.policy,
                policy_version=said.policy_version,
                ended_at=span.ended_at or span.started_at,
            )
        )
    _give_step_rewards(rollout, transitions)
    return transitions


def _give_step_rewards(rollout: Rollout, transitions: list[Transition]) -> None:
    by_span = {transition.span_id: transition for transition in transitions}
    for reward in rollout.rewards:
        if not reward.step or reward.value is None or not transitions:
            continue
        target = by_span.get(reward.span_id or "")
        if target is None:
            before = [transition for transition in transitions if transition.ended_at <= reward.at]
            target = before[-1] if before else transitions[0]
        target.reward = (target.reward or 0.0) + reward.weight * reward.value


def merge(transitions: Seq[Transition]) -> tuple[list[Sequence], int]:
    """Sequences of one agent's transitions, and how many transitions after the first started a new one.

    A sequence has one sampling temperature and one policy: a call that differs starts a new one.
    """
    sequences: list[Sequence] = []
    for transition in transitions:
        extended = _longest_extended(sequences, transition)
        if extended is None:
            sequences.append(_start(transition))
        else:
            _extend(extended, transition)
    return sequences, max(len(sequences) - 1, 0)


def _longest_extended(sequences: list[Sequence], transition: Transition) -> Sequence | None:
    best = None
    for sequence in sequences:
        length = len(sequence.token_ids)
        if (
            length <= len(transition.prompt_ids)
            and (best is None or length > len(best.token_ids))
            and sequence.temperature == transition.temperature
            and sequence.transitions[-1].policy == transition.policy
            and np.array_equal(transition.prompt_ids[:length], sequence.token_ids)
        ):
            best = sequence
    return best


def _start(transition: Transition) -> Sequence:
    empty = Sequence(
        rollout_id=transition.rollout_id,
        agent=transition.agent,
        token_ids=np.empty(0, np.int32),
        mask=np.empty(0, np.bool_),
        logprobs=np.empty(0, np.float32),
        temperature=transition.temperature,
        transitions=[],
        spans=[],
    )
    _extend(empty, transition)
    return empty


def _extend(sequence: Sequence, transition: Transition) -> None:
    given = transition.prompt_ids[len(sequence.token_ids) :]
    written = transition.response_ids
    start = len(transition.prompt_ids)
    sequence.token_ids = np.concatenate([sequence.token_ids, given, written]).astype(np.int32, copy=False)
    sequence.mask = np.concatenate([sequence.mask, np.zeros(len(given), np.bool_), np.ones(len(written), np.bool_)])
    sequence.logprobs = np.concatenate(
        [sequence.logprobs, np.zeros(len(given), np.float32), transition.logprobs.astype(np.float32, copy=False)]
    )
    sequence.transitions.append(transition)
    sequence.spans.append((start, start + len(written)))


def build_trajectories(rollout: Rollout, spans: Seq[Span]) -> list[Trajectory]:
    """The trajectories of a rollout, one per agent that a policy answered, in the order they first acted."""
    by_agent: dict[str | None, list[Transition]] = {}
    for transition in build_transitions(rollout, spans):
        by_agent.setdefault(transition.agent, []).append(transition)
    trajectories = []
    for agent, transitions in by_agent.items():
        sequences, breaks = merge(transitions)
        trajectories.append(
            Trajectory(rollout_id=rollout.id, agent=agent, transitions=transitions, sequences=sequences, breaks=breaks)
        )
    return trajectories
