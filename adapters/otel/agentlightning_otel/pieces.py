"""An export request taken apart: our spans, each with where it came from; and what could not be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentlightning.records import Span
from agentlightning_otel.conventions import is_gen_ai
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.incoming import read_event, read_span
from agentlightning_otel.wire import attributes_of

UNKNOWN_SERVICE = "unknown_service"


class Piece(NamedTuple):
    """A span, and the service and resource it came from."""

    span: Span
    service: str
    resource: dict[str, Any]
    gen_ai: bool


class Pieces(NamedTuple):
    """What a request holds; ``rejected`` says of each span that could not be used why not."""

    found: list[Piece]
    rejected: list[str]


def pieces_of_traces(request: ExportTraceServiceRequest) -> Pieces:
    """The spans of a request."""
    found: list[Piece] = []
    rejected: list[str] = []
    for group in request.resource_spans:
        resource = attributes_of(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                try:
                    found += _pieces(read_span(span), resource)
                except PayloadError as error:
                    rejected.append(f"{span.name!r}: {error}")
    return Pieces(found, rejected)


def pieces_of_logs(request: ExportLogsServiceRequest) -> Pieces:
    """What the GenAI events of a request tell; other log records are passed over."""
    found: list[Piece] = []
    rejected: list[str] = []
    for group in request.resource_logs:
        resource = attributes_of(group.resource.attributes)
        for scope in group.scope_logs:
            for record in scope.log_records:
                try:
                    found += _pieces(read_event(record), resource)
                except PayloadError as error:
                    rejected.append(f"{record.event_name!r}: {error}")
    return Pieces(found, rejected)


def _pieces(spans: list[Span], resource: dict[str, Any]) -> Iterator[Piece]:
    for span in spans:
        gen_ai = span.kind != "annotation" or is_gen_ai(span.attributes)
        yield Piece(span, _service(resource), resource, gen_ai)


def _service(resource: dict[str, Any]) -> str:
    return str(resource.get("service.name") or UNKNOWN_SERVICE)
