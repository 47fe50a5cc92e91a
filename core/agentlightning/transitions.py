"""Spans → training rows. Pure functions.

Every call that a policy answered is one transition. A call whose prompt extends what is already there,
token for token, continues that row; the tokens between (a tool's result, the next question) are
masked out::

    call 1   prompt [A B]           wrote [c d]
    call 2   prompt [A B c d E]     wrote [f]
    ──────────────────────────────────────────────
    tokens   A B c d E f
    mask     · · x x · x

A call that extends no row (the agent edited, summarised or dropped messages) begins a new one. Each call is
matched against every row of its agent, the longest first, so parallel branches and interleaved agents keep
their own rows. A row has one policy, one version of it and one temperature: a call that differs begins a new one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentlightning.records import Rollout, Span
from agentlightning.step_rewards import step_rewards
from agentlightning.training_rows import TrainingRow, Transition


def build_rows(rollout: Rollout, spans: Sequence[Span]) -> list[TrainingRow]:
    """The rows of the calls that a policy answered with exact tokens, in the order in which they began.

    `step_rewards` says which transition a step reward is for; one for a call of another model is no transition's. The
    rewards of the outcome are left to credit assignment.
    """
    rows: list[TrainingRow] = []
    calls: list[Span] = []
    transitions: list[Transition] = []
    for span in sorted(spans, key=lambda span: span.index):
        call = span.generation
        if call is None or call.policy is None:
            continue
        tokens = call.exact_tokens
        if tokens is None:
            continue
        prompt, response, logprobs = tokens
        made = Transition(
            span_id=span.id,
            index=len(calls),
            agent=span.agent,
            policy=call.policy,
            policy_version=call.policy_version,
            start=len(prompt),
            end=len(prompt) + len(response),
        )
        row = _longest_extended(rows, made, prompt, call.temperature)
        if row is None:
            row = _empty_row(rollout, made, call.temperature)
            rows.append(row)
        _extend(row, made, prompt, response, logprobs)
        calls.append(span)
        transitions.append(made)
    given = step_rewards(rollout, spans, calls)
    for made in transitions:
        made.reward = given.get(made.span_id)
    return rows


def _longest_extended(
    rows: list[TrainingRow], made: Transition, prompt: np.ndarray, temperature: float
) -> TrainingRow | None:
    writer = (made.agent, made.policy, made.policy_version, temperature)
    extended = [
        row
        for row in rows
        if (row.agent, row.policy, row.policy_version, row.temperature) == writer
        and np.array_equal(prompt[: len(row.token_ids)], row.token_ids)
    ]
    return max(extended, key=lambda row: len(row.token_ids), default=None)


def _empty_row(rollout: Rollout, made: Transition, temperature: float) -> TrainingRow:
    return TrainingRow(
        rollout_id=rollout.id,
        agent=made.agent,
        policy=made.policy,
        policy_version=made.policy_version,
        token_ids=np.empty(0, np.int32),
        mask=np.empty(0, np.bool_),
        logprobs=np.empty(0, np.float32),
        advantages=np.empty(0, np.float32),
        temperature=temperature,
    )


def _extend(row: TrainingRow, made: Transition, prompt: np.ndarray, response: np.ndarray, logprobs: np.ndarray) -> None:
    between = prompt[len(row.token_ids) :]
    unwritten, unset = np.zeros(len(between), np.float32), np.full(len(response), np.nan, np.float32)
    row.token_ids = np.concatenate([row.token_ids, between, response], dtype=np.int32)
    row.mask = np.concatenate([row.mask, unwritten > 0, np.ones(len(response), np.bool_)])
    row.logprobs = np.concatenate([row.logprobs, unwritten, logprobs], dtype=np.float32)
    row.advantages = np.concatenate([row.advantages, unwritten, unset])
    row.transitions.append(made)
