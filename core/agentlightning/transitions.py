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
from typing import NamedTuple

import numpy as np

from agentlightning.records import Reward, Rollout, Span, SpanKind
from agentlightning.semconv import TOOL_CALL_ID
from agentlightning.training_rows import TrainingRow, Transition

CALLED_BY_MODELS: tuple[SpanKind, ...] = ("tool", "retrieval", "handoff")


class _Call(NamedTuple):
    """A call that a policy answered, and the transition that it is."""

    span: Span
    made: Transition

    @property
    def ended_at(self) -> float:
        return self.span.ended_at or self.span.started_at

    @property
    def tool_call_ids(self) -> list[str]:
        """Of the tools that its answer asks for."""
        response = self.span.generation.response if self.span.generation is not None else None
        asked = (response or {}).get("tool_calls")
        calls = asked if isinstance(asked, list) else []
        return [call["id"] for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str)]


def build_rows(rollout: Rollout, spans: Sequence[Span]) -> list[TrainingRow]:
    """The rows of the calls that a policy answered with exact tokens, in the order in which they began.

    A step reward belongs to the call whose span it names. One of a tool, a retrieval or a hand-off belongs to the call
    that asked for it, by the id of the tool call, else to the last one before it began, rather one of the same agent;
    any other to the last call that had ended by then. One given before the first call, or for a call of another model,
    is no transition's. The rewards of the outcome are left to credit assignment.
    """
    rows: list[TrainingRow] = []
    calls: list[_Call] = []
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
        calls.append(_Call(span, made))
    _give_step_rewards(rollout, spans, calls)
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


def _give_step_rewards(rollout: Rollout, spans: Sequence[Span], calls: Sequence[_Call]) -> None:
    by_id = {span.id: span for span in spans}
    for reward in rollout.rewards:
        if not reward.step or reward.value is None:
            continue
        made = _rewarded(reward, by_id.get(reward.span_id or ""), calls)
        if made is not None:
            made.reward = (made.reward or 0.0) + reward.weight * reward.value


def _rewarded(reward: Reward, span: Span | None, calls: Sequence[_Call]) -> Transition | None:
    """The transition that a step reward belongs to; None where that is another model's call, or none had been made."""
    if span is None:
        return _last_before(reward.at, calls)
    if span.kind == "llm":
        return next((call.made for call in calls if call.span is span), None)
    if span.kind not in CALLED_BY_MODELS:
        return _last_before(reward.at if span.ended_at is None else min(reward.at, span.ended_at), calls)
    asked = [call for call in calls if span.attributes.get(TOOL_CALL_ID) in call.tool_call_ids]
    if asked:
        return asked[-1].made
    own = [call for call in calls if call.span.agent == span.agent]
    return _last_before(span.started_at, own) or _last_before(span.started_at, calls)


def _last_before(at: float, calls: Sequence[_Call]) -> Transition | None:
    ended = [call for call in calls if call.ended_at <= at]
    return max(ended, key=lambda call: call.ended_at).made if ended else None
