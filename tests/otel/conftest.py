"""What these tests share: requests as an exporter makes them, a server that receives into a store, and a collector."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from agentlightning.records import Rollout, Span, Task
from agentlightning.store import RunRecord, open_store
from agentlightning_otel.payloads import PROTOBUF
from agentlightning_otel.server import OtlpServer
from agentlightning_otel.values import pairs_of

TRACE = "0af7651916cd43dd8448eb211c80319c"
EXPORTING_AGENT = Path(__file__).parent / "exporting_agent.py"


class Recorded(NamedTuple):
    """What a store holds of one run."""

    run: RunRecord
    rollouts: list[Rollout]
    spans: dict[str, list[Span]]
    tasks: dict[str, Task]


def span(
    id: int,
    name: str,
    attributes: dict[str, Any] | None = None,
    *,
    parent: int | None = None,
    at: tuple[float, float] | None = None,
    trace: str = TRACE,
    events: Sequence[tuple[str, dict[str, Any]]] = (),
    error: str | None = None,
) -> OtlpSpan:
    """A span as it is on the wire: ids are small numbers, ``at`` is in seconds."""
    began, ended = at or (100.0 + id, 100.5 + id)
    made = OtlpSpan(
        trace_id=bytes.fromhex(trace),
        span_id=id.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent is not None else b"",
        name=name,
        start_time_unix_nano=round(began * 1e9),
        end_time_unix_nano=round(ended * 1e9),
        attributes=pairs_of(attributes or {}),
        events=[
            OtlpSpan.Event(name=name, time_unix_nano=round((began + place / 100) * 1e9), attributes=pairs_of(event))
            for place, (name, event) in enumerate(events)
        ],
    )
    if error is not None:
        made.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=error))
    return made


def request(*spans: OtlpSpan, service: str = "agent") -> ExportTraceServiceRequest:
    """An export request of one service."""
    resource = Resource(attributes=pairs_of({"service.name": service}))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    )


def evaluation(name: str, score: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    """An evaluation as a span's event."""
    score_attributes = {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": score}
    return "gen_ai.evaluation.result", {
        **score_attributes,
        **{f"gen_ai.evaluation.{key}": value for key, value in more.items()},
    }


def post(url: str, body: bytes, content_type: str = PROTOBUF, **headers: str) -> SimpleNamespace:
    """Status, body and headers of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(url, body, {"Content-Type": content_type, **named}, method="POST")
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return SimpleNamespace(status=answer.status, body=answer.read(), headers=answer.headers)
    except urllib.error.HTTPError as error:
        return SimpleNamespace(status=error.code, body=error.read(), headers=error.headers)


def read(url: str, run_id: str) -> Recorded:
    """Everything that a store holds of a run."""

    async def look() -> Recorded:
        store = open_store(f"{url}?mode=ro")
        try:
            run = await store.run(run_id)
            assert run is not None, f"no run {run_id}; there are {[run.id for run in await store.runs()]}"
            rollouts = await store.rollouts(run_id)
            spans = {rollout.id: await store.spans(rollout.id) for rollout in rollouts}
            return Recorded(run, rollouts, spans, await store.tasks(run_id))
        finally:
            await store.close()

    return asyncio.run(look())


class Receiving:
    """A store, and servers that receive into it one after another."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def server(self, **options: Any) -> Iterator[Callable[..., SimpleNamespace]]:
        """Yields what sends requests, in protobuf, and says what was answered. A rollout ends with its root."""
        with OtlpServer(self.url, port=0, **{"settle": 0.0, **options}) as server:

            def send(*requests: ExportTraceServiceRequest) -> SimpleNamespace:
                answers = [post(f"{server.endpoint}/v1/traces", it.SerializeToString()) for it in requests]
                return answers[-1]

            send.endpoint = server.endpoint  # type: ignore[attr-defined]
            yield send

    def receive(self, *requests: ExportTraceServiceRequest, **options: Any) -> None:
        """Has a server receive requests, in order, and stops it."""
        with self.server(**{"settle": 1000.0, **options}) as send:
            for it in requests:
                assert send(it).status == 200

    def read(self, run_id: str = "otel-agent") -> Recorded:
        return read(self.url, run_id)

    def one(self, run_id: str = "otel-agent") -> tuple[Rollout, list[Span]]:
        """The only rollout of a run, and its spans."""
        recorded = self.read(run_id)
        (rollout,) = recorded.rollouts
        return rollout, recorded.spans[rollout.id]


@pytest.fixture
def receiving(tmp_path: Path) -> Receiving:
    return Receiving(f"sqlite:///{tmp_path}/store.db")


@pytest.fixture
def otlp() -> SimpleNamespace:
    """How to make requests, post them, and read what they made."""
    return SimpleNamespace(
        span=span, request=request, evaluation=evaluation, post=post, read=read, TRACE=TRACE, run_agent=run_agent
    )


def run_agent(endpoint: str, *arguments: str) -> None:
    """Runs the exporting agent in a process of its own until it has sent everything."""
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    subprocess.run([sys.executable, str(EXPORTING_AGENT), *arguments], env=environment, check=True, timeout=60)


class Collector:
    """An OTLP/HTTP endpoint such as a collector's: it decodes with the official classes and keeps everything.

    ``answers`` are statuses to answer with first, in this order; then it answers 200.
    """

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[int | ExportTraceServiceResponse] = []
        self.received = threading.Semaphore(0)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                collector.headers.append({"path": self.path, **{name.lower(): it for name, it in self.headers.items()}})
                answer = collector.answers.pop(0) if collector.answers else 200
                if answer == 200 or not isinstance(answer, int):
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                partial = answer if not isinstance(answer, int) else ExportTraceServiceResponse()
                content = partial.SerializeToString() if answer == 200 or not isinstance(answer, int) else b"not now"
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("Content-Type", PROTOBUF)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                collector.received.release()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[OtlpSpan]:
        """Every span of every request, in order."""
        groups = [group for it in self.requests for group in it.resource_spans]
        return [span for group in groups for scope in group.scope_spans for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine sends its traces to, it is not for tests."""
    for name in [name for name in os.environ if name.startswith(("OTEL_", "AGENTLIGHTNING_OTLP"))]:
        monkeypatch.delenv(name)
