"""Sending spans to an OTLP/HTTP endpoint: a run from the store, or rollouts as they finish.

urllib3 sends again what the endpoint asks for, after the time that it asks for. OpenTelemetry's own exporter takes only
spans that its tracer has made, batches them by number but not by size, and does not say why an endpoint refused them.
"""

from __future__ import annotations

import atexit
import gzip
import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from urllib.parse import unquote, urlsplit

import urllib3
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from agentlightning.records import Rollout, Span, Task
from agentlightning.store.base import RunRecord, Store
from agentlightning_otel.errors import OtlpError
from agentlightning_otel.outgoing import otlp_spans, resource_of, scope
from agentlightning_otel.payloads import PROTOBUF, media_type

logger = logging.getLogger(__name__)

BATCH_SPANS = 512
BATCH_BYTES = 2 * 1024**2
"""Some endpoints take 4 MiB at most."""
RETRIES = 5
LIVE_RETRIES = 2
BACKOFF_SECONDS = 0.5
"""Before the second try; doubled each time, unless the endpoint says how long to wait."""
RETRIED = (429, 502, 503, 504)
"""https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes"""
TIMEOUT_SECONDS = 30.0
MAX_QUEUED = 1024
"""Rollouts that may wait to be sent; further ones are left out and counted."""
FLUSH_SECONDS = 10.0


class Sender:
    """Sends rollouts to ``endpoint``, the base of ``/v1/traces`` or that address itself.

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

    def send(self, rollout: Rollout, spans: Sequence[Span], task: Task | None) -> int:
        """Sends a rollout; returns how many spans. Raises `OtlpError` where the endpoint did not take them."""
        resource = resource_of(rollout.run_id, os.environ.get("OTEL_SERVICE_NAME"))
        count = 0
        for batch in batches(otlp_spans(rollout, spans, task)):
            scopes = [ScopeSpans(scope=scope(), spans=batch)]
            self._post(ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=scopes)]))
            count += len(batch)
        return count

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def _post(self, request: ExportTraceServiceRequest) -> None:
        body = gzip.compress(request.SerializeToString(), compresslevel=3)
        try:
            answer = self._pool.request("POST", self.url, body=body, headers=self._headers)
        except urllib3.exceptions.HTTPError as error:
            raise OtlpError(f"{self.url} cannot be reached: {error}; is it an OTLP/HTTP endpoint?") from error
        if not 200 <= answer.status < 300:
            reason = _decoded(Status, answer.data).message or answer.data[:500].decode(errors="replace")
            raise OtlpError(f"{self.url} answered {answer.status}: {reason or 'no reason given'}")
        is_protobuf = media_type(answer.headers.get("Content-Type", "")) == PROTOBUF
        partial = _decoded(ExportTraceServiceResponse, answer.data if is_protobuf else b"").partial_success
        if partial.rejected_spans:
            raise OtlpError(f"{self.url} refused {partial.rejected_spans} span(s): {partial.error_message}")


async def send_run(store: Store, run: RunRecord, sender: Sender) -> tuple[int, int]:
    """Sends every finished rollout of a run, one in memory at a time; returns how many rollouts, and how many spans.

    Raises `OtlpError`.
    """
    tasks = await store.tasks(run.id)
    rollouts = spans = 0
    for rollout in await store.rollouts(run.id):
        if rollout.finished:
            recorded = await store.spans(rollout.id, attempt=rollout.attempt)
            spans += sender.send(rollout, recorded, tasks.get(rollout.task_id))
            rollouts += 1
    return rollouts, spans


class LiveSender:
    """Sends what it is given, in order, from a thread of its own. An endpoint that fails costs what was to be sent, and
    one warning."""

    def __init__(self, endpoint: str) -> None:
        """Raises `OtlpError` where the endpoint is no address."""
        self._sender = Sender(endpoint, retries=LIVE_RETRIES)
        self._queue: queue.Queue[tuple[Rollout, Sequence[Span], Task | None]] = queue.Queue(MAX_QUEUED)
        self._lost = 0
        threading.Thread(target=self._send_all, name="agentlightning-otel-sender", daemon=True).start()

    def send(self, rollout: Rollout, spans: Sequence[Span], task: Task | None) -> None:
        """Hands a rollout over; returns at once."""
        try:
            self._queue.put_nowait((rollout, spans, task))
        except queue.Full:
            self._lose(rollout, "more than can be sent are waiting")

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Waits until everything handed over was sent or lost, but no longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._queue.all_tasks_done.wait(left)

    def _send_all(self) -> None:
        while True:
            rollout, spans, task = self._queue.get()
            try:
                self._sender.send(rollout, spans, task)
            except OtlpError as error:
                self._lose(rollout, str(error))
            except Exception:
                logger.exception("rollout %s could not be made into a trace; it is not sent", rollout.id)
            finally:
                self._queue.task_done()

    def _lose(self, rollout: Rollout, reason: str) -> None:
        self._lost += 1
        level = logging.WARNING if self._lost == 1 else logging.DEBUG
        message = "rollout %s is not sent: %s. `agl otel send %s` sends what the store has"
        logger.log(level, message, rollout.id, reason, rollout.run_id)


@cache
def live_sender(endpoint: str) -> LiveSender | None:
    """The one sender of this process to an endpoint; None, with an error in the log, where it is no address."""
    try:
        sender = LiveSender(endpoint)
    except OtlpError as error:
        logger.error("rollouts are not sent: %s", error)
        return None
    atexit.register(sender.flush)
    return sender


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


def _decoded(kind: type[Message], body: bytes) -> Message:
    """An endpoint's answer; an empty one where it is none."""
    try:
        return kind.FromString(body)
    except DecodeError:
        return kind()
