"""The spans of a rollout's calls, and of the tools that it ran."""

from __future__ import annotations

from agentlightning import semconv
from agentlightning.errors import AlgorithmError
from agentlightning.records import Generation, Span
from agentlightning.training_rows import RolloutRows


def call_spans(member: RolloutRows) -> list[Span]:
    """The ``llm`` span of each call of a rollout, (T,). Raises `AlgorithmError` where one is missing."""
    by_id = {span.id: span for span in member.spans}
    found = []
    for _, call in member.transitions:
        span = by_id.get(call.span_id)
        if span is None:
            raise AlgorithmError(
                f"the credit needs the span of call {call.index} of rollout {member.rollout.id}, and it is not there"
            )
        found.append(span)
    return found


def generation_of(span: Span) -> Generation:
    """What a call's span says. Raises `AlgorithmError` where it says nothing."""
    if span.generation is None:
        raise AlgorithmError(
            f"the credit needs the messages of span {span.id} of rollout {span.rollout_id}, and they are not there"
        )
    return span.generation


def tool_spans(member: RolloutRows) -> list[Span]:
    """The tools that a rollout ran, by index."""
    return [span for span in member.spans if span.kind == "tool"]


def tool_name(span: Span) -> str:
    """The name of the tool that a ``tool`` span is of."""
    return str(span.attributes.get(semconv.TOOL_NAME, span.name))
