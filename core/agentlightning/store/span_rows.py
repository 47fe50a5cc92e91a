"""Spans as the embedded store's table holds them."""

from __future__ import annotations

import operator
from typing import Any

from agentlightning.records import Span, encode
from agentlightning.redaction import scrub
from agentlightning.store import tries
from agentlightning.store.writer import Insert

SPANS = Insert(
    "spans",
    ("rollout_id", "attempt", "id", "idx", "kind", *tries.Columns._fields, "record"),
    "ON CONFLICT (rollout_id, attempt, id) DO UPDATE SET idx = excluded.idx, kind = excluded.kind, "
    f"{', '.join(f'{name} = excluded.{name}' for name in tries.Columns._fields)}, record = excluded.record",
)


def span_row(span: Span) -> tuple[Any, ...]:
    """The row of a span, as it is now; its record is the last value."""
    place = (operator.index(span.attempt), span.id, operator.index(span.index), span.kind)
    return (span.rollout_id, *place, *tries.columns_of(span), scrub(encode(span)))
