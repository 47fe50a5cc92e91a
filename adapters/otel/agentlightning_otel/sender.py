"""Posting spans to an OTLP/HTTP endpoint, in batches, compressed, tried again where the endpoint asks for it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from agentlightning.store.base import RunRecord, Store
from agentlightning_otel.errors import OtlpError
from agentlightning_otel.outgoing import otlp_spans, resource_of, scope
from agentlightning_otel.wire import PROTOBUF

BATCH_SPANS = 512
BATCH_BYTES = 2 * 1024**2
"""Some endpoints take 4 MiB at most."""
RETRIES = 5
BACKOFF_SECONDS = 0.5
"""Before the second try; doubled each time, unless the endpoint says how long to wait."""
RETRIED = (429, 502, 503, 504)
"""https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes"""
TIMEOUT_SECONDS = 30.0


class Sent(NamedTuple):
    """What an endpoint took."""

    rollouts: int
    spans: int


class Sender:
    """Sends spans to ``endpoint``, the base of ``/v1/traces`` or that address itself.

    ``headers`` go with every request, besides those of ``OTEL_EXPORTER_OTLP_HEADERS``. Raises `OtlpError` where the
    endpoint is no address.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str] | None = None, *, retries: int = RETRIES) -> None:
        self.url = traces_url(endpoint)
        self._headers = {
            **headers_of(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")),
            **(headers or {}),
            "Content-Type": PROTOBUF,
            "Content-Encoding": "gzip",
        }
        retry = urllib3.Retry(
            retries,
            status_forcelist=RETRIED,
            allowed_methods=None,
            backoff_factor=BACKOFF_SECONDS,
            raise_on_status=False,
        )
        self._pool = urllib3.PoolManager(retries=retry, timeout=TIMEOUT_SECONDS)

    def send(self, resource: Resource, spans: Iterable[OtlpSpan]) -> int:
        """Sends spans of one resource; returns how many. Raises `OtlpError` where the endpoint did not take them."""
        count = 0
        for batch in batches(spans):
            self._post(resource, batch)
            count += len(batch)
        return count

    def close(self) -> None:
        """Lets the connections go."""
        self._pool.clear()

    def _post(self, resource: Resource, spans: list[OtlpSpan]) -> None:
        scopes = [ScopeSpans(scope=scope(), spans=spans)]
        request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=scopes)])
        body = gzip.compress(request.SerializeToString(), compresslevel=3)
        try:
            answer = self._pool.request("POST", self.url, body=body, headers=self._headers)
        except urllib3.exceptions.HTTPError as error:
            raise OtlpError(f"{self.url} cannot be reached: {error}; is it an OTLP/HTTP endpoint?") from error
        if not 200 <= answer.status < 300:
            raise OtlpError(f"{self.url} answered {answer.status}: {_told(answer.data)}")
        _refuse_partial(self.url, answer)


async def send_run(store: Store, run: RunRecord, sender: Sender) -> Sent:
    """Sends every finished rollout of a run, one rollout in memory at a time. Raises `OtlpError`."""
    resource = resource_of(run.id, os.environ.get("OTEL_SERVICE_NAME"))
    tasks = await store.tasks(run.id)
    rollouts = spans = 0
    for rollout in await store.rollouts(run.id):
        if rollout.finished:
            recorded = await store.spans(rollout.id, attempt=rollout.attempt)
            spans += sender.send(resource, otlp_spans(rollout, recorded, tasks.get(rollout.task_id)))
            rollouts += 1
    return Sent(rollouts, spans)


def traces_url(endpoint: str) -> str:
    """Where traces are posted to. Raises `OtlpError`."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise OtlpError(f"endpoint {endpoint!r}: expected an address such as http://127.0.0.1:4318")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith("/v1/traces") else f"{path}/v1/traces").geturl()


def headers_of(text: str) -> dict[str, str]:
    """``name=value,name=value`` as OpenTelemetry's variables have it. Raises `OtlpError`."""
    headers = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise OtlpError(f"header {part!r}: expected name=value")
        headers[name.strip()] = unquote(value.strip())
    return headers


def batches(spans: Iterable[OtlpSpan]) -> Iterator[list[OtlpSpan]]:
    """Spans by `BATCH_SPANS` and `BATCH_BYTES`, whichever is reached first; a larger span goes alone."""
    batch: list[OtlpSpan] = []
    size = 0
    for span in spans:
        bytes = span.ByteSize()
        if batch and (len(batch) == BATCH_SPANS or size + bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(span)
        size += bytes
    if batch:
        yield batch


def _refuse_partial(url: str, answer: urllib3.BaseHTTPResponse) -> None:
    if answer.headers.get("Content-Type", "").partition(";")[0] != PROTOBUF:
        return
    try:
        partial = ExportTraceServiceResponse.FromString(answer.data).partial_success
    except DecodeError:
        return
    if partial.rejected_spans:
        raise OtlpError(f"{url} refused {partial.rejected_spans} span(s): {partial.error_message}")


def _told(body: bytes) -> str:
    try:
        message: str = Status.FromString(body).message
    except DecodeError:
        message = ""
    return message or body[:500].decode(errors="replace") or "no reason given"
