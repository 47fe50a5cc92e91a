"""The OTLP receiver under load: ``python tests/bench/receiver.py``.

Two loads, each on a receiver in a process of its own: 100,000 spans of 10,000 traces, and 60 spans of 20 MB whose
traces have to do with no model. Beside them one exporter sends a small trace every 50 ms. Prints how long the load
took, how long that exporter waited at most (an exporter's own limit is 10 s) and what memory the receiver had at most.
Exits with 1 over a limit.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agentlightning_otel.payloads import PROTOBUF
from agentlightning_otel.values import pairs_of

TRACES, SPANS_OF_A_TRACE, SPANS_OF_A_REQUEST = 10_000, 10, 512
LARGE_SPANS, LARGE_BYTES = 60, 20 * 1024**2
EXPORTER_SECONDS = 10.0
MEMORY = 700 * 1024**2
CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small", "gen_ai.usage.output_tokens": 7}
MESSAGES = {"gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "1 + 1?"}]}]'}


def span(trace: int, number: int, attributes: dict[str, object]) -> Span:
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=b"" if number == 1 else (1).to_bytes(8, "big"),
        name="chat small",
        start_time_unix_nano=10**18 + number,
        end_time_unix_nano=10**18 + 100,
        attributes=pairs_of(attributes),
    )


def body(spans: list[Span]) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def many() -> Iterator[bytes]:
    """Requests of a batch processor's size."""
    spans: list[Span] = []
    for trace in range(1, TRACES + 1):
        spans += [span(trace, number + 1, {**CALL, **MESSAGES}) for number in range(SPANS_OF_A_TRACE)]
        while len(spans) >= SPANS_OF_A_REQUEST:
            yield body(spans[:SPANS_OF_A_REQUEST])
            del spans[:SPANS_OF_A_REQUEST]
    yield body(spans)


def large() -> Iterator[bytes]:
    for number in range(LARGE_SPANS):
        yield body([span(10**6 + number, 1, {"http.request.body": "x" * LARGE_BYTES})])


def post(port: int, content: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/v1/traces", content, {"content-type": PROTOBUF})
        response = connection.getresponse()
        response.read()
        return response.status
    except OSError:  # refused before all of it was sent
        return 503
    finally:
        connection.close()


def send(port: int, content: bytes) -> int:
    """Sends until it is taken, as an exporter does; returns how often it was to come again."""
    again = 0
    while (status := post(port, content)) != 200:
        if status != 503:
            raise SystemExit(f"the receiver answered {status}")
        again += 1
        time.sleep(0.5)
    return again


def measure(name: str, bodies: Iterator[bytes]) -> bool:
    """Whether a load keeps within the limits."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from agentlightning.cli import main; main()", "otel", "receive"]
        process = subprocess.Popen(
            [*command, "--port", "0", "--store", f"sqlite:///{folder}/store.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        process.stdout.readline()
        port = int(process.stdout.readline().strip().rpartition(":")[2])
        done = threading.Event()
        waited, memory = [0.0], [0]

        def beside() -> None:
            number = 10**9
            while not done.wait(0.05):
                number += 1
                began = time.monotonic()
                send(port, body([span(number, 1, CALL)]))
                waited.append(time.monotonic() - began)
                memory.append(psutil.Process(process.pid).memory_info().rss)

        thread = threading.Thread(target=beside)
        thread.start()
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            again = sum(pool.map(lambda content: send(port, content), bodies))
        took = time.monotonic() - began
        done.set()
        thread.join()
        began = time.monotonic()
        process.terminate()
        process.wait()
        stopped = time.monotonic() - began
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(f"{name}: {took:.1f} s, stopped within {stopped:.1f} s; {again} requests to come again")
    print(f"  another exporter waited {max(waited):.2f} s at most, in {len(waited) - 1} requests")
    print(f"  memory {max(memory) >> 20} MiB at most; on the disk {size >> 20} MiB")
    return max(waited) <= EXPORTER_SECONDS and max(memory) <= MEMORY


def main() -> None:
    fine = measure(f"{TRACES * SPANS_OF_A_TRACE:,} spans of {TRACES:,} traces", many())
    fine &= measure(f"{LARGE_SPANS} spans of {LARGE_BYTES >> 20} MiB that wait for a model", large())
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
