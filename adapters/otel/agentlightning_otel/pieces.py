"""An export request taken apart: our spans, each with where it came from; and what could not be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentlightning.loading import explain
from agentlightning.records import Span
from agentlightning_otel.checks import conforming
from agentlightning_otel.conventions import is_gen_ai
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.incoming import read_event, read_span
from agentlightning_otel.text import clipped
from agentlightning_otel.wire import attributes_of

logger = logging.getLogger(__name__)

UNKNOWN_SERVICE = "unknown_service"
SPAN_BYTES = 2000
PARSED = 3
"""What a span takes in memory beside what it says, and how much larger messages are than their JSON: about."""


class Piece(NamedTuple):
    """A span, and the service and resource it came from; ``size`` is about what it takes in memory."""

    span: Span
    service: str
    resource: dict[str, Any]
    gen_ai: bool
    size: int


class Pieces(NamedTuple):
    """What a request holds; ``rejected`` says of each span that could not be used why not, ``dropped`` of each part
    of a span."""

    found: list[Piece]
    rejected: list[str]
    dropped: list[str]


def pieces_of_traces(request: ExportTraceServiceRequest) -> Pieces:
    """The spans of a request."""
    pieces = Pieces([], [], [])
    for group in request.resource_spans:
        resource = _resource(group, pieces.dropped)
        for scope in group.scope_spans:
            for span in scope.spans:
                _add(pieces, read_span, span, span.name, resource)
    return pieces


def pieces_of_logs(request: ExportLogsServiceRequest) -> Pieces:
    """What the GenAI events of a request tell; other log records are passed over."""
    pieces = Pieces([], [], [])
    for group in request.resource_logs:
        resource = _resource(group, pieces.dropped)
        for scope in group.scope_logs:
            for record in scope.log_records:
                _add(pieces, read_event, record, record.event_name, resource)
    return pieces


def _add(
    pieces: Pieces, read: Callable[[Any, list[str]], list[Span]], entry: Any, name: str, resource: dict[str, Any]
) -> None:
    try:
        pieces.found.extend(_pieces(read(entry, pieces.dropped), resource, entry.ByteSize()))
    except PayloadError as error:
        pieces.rejected.append(f"{clipped(name, 80)!r}: {error}")
    except Exception as error:
        logger.exception("a span could not be read")
        pieces.rejected.append(f"{clipped(name, 80)!r}: it cannot be read: {clipped(explain(error))}")


def _resource(group: Any, dropped: list[str]) -> dict[str, Any]:
    return conforming(attributes_of(group.resource.attributes), "the resource", dropped)


def _pieces(spans: list[Span], resource: dict[str, Any], size: int) -> Iterator[Piece]:
    service = str(resource.get("service.name") or UNKNOWN_SERVICE)
    for span in spans:
        gen_ai = span.kind != "annotation" or is_gen_ai(span.attributes)
        says = size * PARSED if span.generation is not None else size
        yield Piece(span, service, resource, gen_ai, says // len(spans) + SPAN_BYTES)
