"""Groups whose calls are made by hand, through the spans that they would have left; and what a credit gives each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning import semconv
from agentlightning.credit import Credit, give_credit, load_credit
from agentlightning.records import Generation, Purpose, Reward, Rollout, Span, Task
from agentlightning.training_rows import Group, RolloutRows
from agentlightning.transitions import build_rows

STEP = 10
"""Call number n of a rollout has the index and begins at the time STEP · (n + 1), and ends one later."""


@dataclass
class Call:
    """A call of a policy, and what is known of it: ``prompt`` and ``answer`` are token ids, ``reward`` its step's."""

    prompt: Sequence[int]
    answer: Sequence[int] = (7,)
    reward: float | None = None
    agent: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    parent: str | None = None


def member(
    name: str,
    calls: Sequence[Call],
    outcome: float | None,
    *,
    purpose: Purpose = "train",
    spans: Sequence[Span] = (),
) -> RolloutRows:
    """A rollout of these calls; ``spans`` are what else happened in it."""
    own = [_span(name, place, call) for place, call in enumerate(calls)]
    rewards = [Reward(name="outcome", value=outcome)] if outcome is not None else []
    for span, call in zip(own, calls, strict=True):
        if call.reward is not None:
            rewards.append(Reward(name="step", value=call.reward, span_id=span.id))
    rollout = Rollout(
        id=name,
        run_id="run",
        group_id="task",
        task_id="task",
        purpose=purpose,
        status="succeeded",
        rewards=rewards,
    )
    every = sorted([*own, *spans], key=lambda span: span.index)
    return RolloutRows(rollout=rollout, spans=every, rows=build_rows(rollout, every))


def group(*members: RolloutRows, name: str = "task") -> Group:
    """The rollouts of one task."""
    return Group(id=name, task=Task(id=name, input=""), rollouts=list(members))


def tool(name: str, after: int, *, id: str = "tool") -> Span:
    """A tool that ran after so many calls."""
    return Span(
        id=id,
        rollout_id="",
        index=STEP * after + 5,
        kind="tool",
        name=f"execute {name}",
        started_at=STEP * after + 5.0,
        ended_at=STEP * after + 6.0,
        attributes={semconv.TOOL_NAME: name},
    )


def agent(id: str, name: str, structure: str, parent: str | None = None) -> Span:
    """A span that calls are made in."""
    return Span(
        id=id, rollout_id="", parent_id=parent, kind="agent", name=name, attributes={semconv.STRUCTURE: structure}
    )


def states(*numbers: int, rewards: Sequence[float | None] = ()) -> list[Call]:
    """Calls from these states, each a prompt of its own, with these step rewards."""
    given = [*rewards, *[None] * (len(numbers) - len(rewards))]
    return [Call(prompt=[100 + number], reward=reward) for number, reward in zip(numbers, given, strict=True)]


def three_rollouts() -> Group:
    """The group of the golden values: s0 s1 s2 earn 1, s0 s1 s3 nothing, s0 s4 earn 1."""
    return group(member("a", states(0, 1, 2), 1.0), member("b", states(0, 1, 3), 0.0), member("c", states(0, 4), 1.0))


def advantages(choice: str | dict[str, Any] | Credit, *groups: Group) -> list[list[float]]:
    """What a credit gives each call of each rollout of the groups, the same on all tokens of the call."""
    credit = choice if isinstance(choice, Credit) else load_credit(choice)
    numbers(credit, *groups)
    found = []
    for member in (member for group in groups for member in group.rollouts):
        of_calls = [set(row.advantages[call.start : call.end].tolist()) for row, call in member.transitions]
        assert all(len(values) == 1 for values in of_calls)
        found.append([values.pop() for values in of_calls])
    return found


def numbers(choice: str | dict[str, Any] | Credit, *groups: Group) -> dict[str, float]:
    """What a credit says for the log."""
    credit = choice if isinstance(choice, Credit) else load_credit(choice)
    return give_credit(credit.assign, groups, name=type(credit).__name__, step=1)


def _span(rollout: str, place: int, call: Call) -> Span:
    prompt, answer = np.array(call.prompt, np.int32), np.array(call.answer, np.int32)
    at = STEP * (place + 1)
    return Span(
        id=f"{rollout}/{place}",
        rollout_id=rollout,
        parent_id=call.parent,
        index=at,
        kind="llm",
        name="chat",
        agent=call.agent,
        started_at=float(at),
        ended_at=at + 1.0,
        generation=Generation(
            messages=call.messages,
            provenance="exact",
            prompt_ids=prompt,
            response_ids=answer,
            logprobs=np.full(len(answer), -1.0, np.float32),
            policy="policy",
        ),
    )
