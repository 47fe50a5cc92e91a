"""Files of OTLP/JSON, as the collector's file exporter writes them → rollouts, for `agl import`.

A record is a request: ``{"resourceSpans": […]}``, or ``{"resourceLogs": […]}`` with GenAI events
(https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/). What becomes what is as with what is received.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentlightning.importers.base import Importer, LateRewards, Row
from agentlightning.records import Rollout, Span
from agentlightning.store.base import Recorded
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.incoming import Received, ReceivedSpan, read_logs, read_traces
from agentlightning_otel.payloads import JSON, decode
from agentlightning_otel.receiver import concluded
from agentlightning_otel.trace import add

TRACES = ("resourceSpans", "resource_spans")
LOGS = ("resourceLogs", "resource_logs")
COLLECTION = "imported"


class Otlp(Importer):
    """A trace with a GenAI span is a rollout."""

    name = "otlp"

    @classmethod
    def recognizes(cls, record: Mapping[str, Any]) -> bool:
        return any(name in record for name in (*TRACES, *LOGS))

    def read(self, rows: Iterable[Row]) -> Iterator[Recorded | LateRewards]:
        traces: dict[str, list[tuple[ReceivedSpan, str]]] = {}
        for row in rows:
            for received in self._received(row):
                traces.setdefault(received.span.rollout_id, []).append((received, row.where))
        for trace, found in traces.items():
            if any(received.gen_ai for received, _ in found):
                spans = [received.span for received, _ in found]
                rollout = self.attempt("trace", found[0][1], self._rollout, trace, spans)
                if rollout is not None:
                    yield rollout
            else:
                reason = "none in its trace has to do with a model"
                self.unread.add("span", reason, found[0][1], len(found))

    def _received(self, row: Row) -> list[ReceivedSpan]:
        is_logs = any(f'"{name}"'.encode() in row.json[:100] for name in LOGS)
        kind = ExportLogsServiceRequest if is_logs else ExportTraceServiceRequest
        try:
            decoded = decode(row.json, JSON, kind)
        except PayloadError as error:
            self.unread.add("request", str(error), row.where)
            return []
        received: Received = read_logs(decoded.message) if is_logs else read_traces(decoded.message)
        for reason in received.rejected:
            self.unread.add("span", reason, row.where)
        for reason in [*decoded.dropped, *received.dropped]:
            self.unread.add("part of a span", reason, row.where)
        return received.spans

    def _rollout(self, trace: str, received: list[Span]) -> Recorded:
        id = self.rollout_id(trace)
        spans: dict[str, Span] = {}
        add(spans, [replace(span, rollout_id=id) for span in received])
        rollout = Rollout(
            id=id,
            run_id=self.run_id,
            group_id=id,
            task_id=id,
            purpose="observe",
            collection=COLLECTION,
            attempt=1,
            created_at=min((span.started_at for span in received), default=time.time()),
        )
        rollout, task = concluded(rollout, spans)
        return Recorded(task=task, rollout=rollout, spans=sorted(spans.values(), key=lambda span: span.index))
