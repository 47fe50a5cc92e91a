"""Spans as the embedded store's table holds them."""

from __future__ import annotations

import operator
from typing import Any

from agentlightning import semconv
from agentlightning.records import Span, encode
from agentlightning.redaction import scrub
from agentlightning.store import tries
from agentlightning.store.writer import Insert

SPANS = Insert(
    "spans",
    ("rollout_id", "attempt", "id", "idx", "kind", *tries.Columns._fields, "response_id", "record"),
    "ON CONFLICT (rollout_id, attempt, id) DO UPDATE SET idx = excluded.idx, kind = excluded.kind, "
    "response_id = excluded.response_id, "
    f"{', '.join(f'{name} = excluded.{name}' for name in tries.Columns._fields)}, record = excluded.record",
)


def span_row(span: Span) -> tuple[Any, ...]:
    """The row of a span, as it is now; its record is the last value."""
    place = (operator.index(span.attempt), span.id, operator.index(span.index), span.kind)
    return (span.rollout_id, *place, *tries.columns_of(span), _response_id(span), scrub(encode(span)))


def _response_id(span: Span) -> str | None:
    """The id that its endpoint gave the answer of a call."""
    id = span.attributes.get(semconv.RESPONSE_ID) if span.kind == "llm" else None
    return id if isinstance(id, str) else None
