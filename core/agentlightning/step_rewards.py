"""Which model call each step reward is for. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentlightning.records import Reward, Rollout, Span, SpanKind
from agentlightning.semconv import TOOL_CALL_ID

CALLED_BY_MODELS: tuple[SpanKind, ...] = ("tool", "retrieval", "handoff")


def step_rewards(rollout: Rollout, spans: Iterable[Span], calls: Sequence[Span]) -> dict[str, float]:
    """What the step rewards of a rollout with these ``spans`` gave to each of its ``calls``, ``llm`` spans with an
    answer: the sum of weight times value, by the id of the call. One that was given nothing is not there.

    A step reward belongs to the call whose span it names. One of a tool, a retrieval or a hand-off belongs to the call
    that asked for it, by the id of the tool call, else to the last one before it began, rather one of the same agent;
    any other to the last call that had ended by then. One given before the first call, or for an ``llm`` span that is
    none of the calls, belongs to none.
    """
    by_id = {span.id: span for span in spans}
    given: dict[str, float] = {}
    for reward in rollout.rewards:
        if not reward.step or reward.value is None:
            continue
        call = _call_of(reward, by_id.get(reward.span_id or ""), calls)
        if call is not None:
            given[call.id] = given.get(call.id, 0.0) + reward.weight * reward.value
    return given


def _call_of(reward: Reward, span: Span | None, calls: Sequence[Span]) -> Span | None:
    if span is None:
        return _last_before(reward.at, calls)
    if span.kind == "llm":
        return next((call for call in calls if call.id == span.id), None)
    if span.kind not in CALLED_BY_MODELS:
        return _last_before(reward.at if span.ended_at is None else min(reward.at, span.ended_at), calls)
    asked = [call for call in calls if span.attributes.get(TOOL_CALL_ID) in _tool_call_ids(call)]
    if asked:
        return asked[-1]
    own = [call for call in calls if call.agent == span.agent]
    return _last_before(span.started_at, own) or _last_before(span.started_at, calls)


def _last_before(at: float, calls: Sequence[Span]) -> Span | None:
    return max((call for call in calls if _ended_at(call) <= at), key=_ended_at, default=None)


def _ended_at(call: Span) -> float:
    return call.ended_at or call.started_at


def _tool_call_ids(call: Span) -> list[str]:
    """Of the tools that its answer asks for."""
    response = call.generation.response if call.generation is not None else None
    asked = (response or {}).get("tool_calls")
    made = asked if isinstance(asked, list) else []
    return [one["id"] for one in made if isinstance(one, dict) and isinstance(one.get("id"), str)]
