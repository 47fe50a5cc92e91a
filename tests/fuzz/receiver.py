"""The OTLP receiver under mutated requests: ``python tests/fuzz/receiver.py [--requests N] [--seed S]``.

A receiver in a process of its own gets N requests (JSON and protobuf, traces and logs, some of them left in the
middle) from four clients. Beside them two exporters send traces that are in order, and somebody asks for ``/health``
every 20 ms. Each request follows from the seed and its number alone.

Wrong is: a status of 500 or none at all, a traceback in the receiver's log, a trace of the exporters that is not there
whole, an answer of ``/health`` after more than a second (and what the machine, busy otherwise, kept this script itself
waiting), memory that goes on growing. Exits with 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil
from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from agentlightning.store import open_store
from agentlightning_otel.payloads import PROTOBUF
from agentlightning_otel.values import pairs_of, to_value

sys.path.insert(0, str(Path(__file__).parent))
from mutate import BYTE_CHANGES, MAX_BYTES, ODD_VALUES, Mutant, mutate

CLIENTS = 4
EXPORTERS = 2
HEALTH_SECONDS = 1.0
GROWTH = 64 * 1024**2
"""Bytes that memory may grow by in the second half of the requests."""
ANSWER_SECONDS = 60.0
COMMAND = "from agentlightning.cli import main; main()"

MESSAGES = [
    {"role": "user", "parts": [{"type": "text", "content": "1 + 1?"}]},
    {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "add", "arguments": {"a": 1, "b": 1}}]},
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "2"}]},
]
ATTRIBUTES: list[dict[str, Any]] = [
    {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "solver", "input.value": "1 + 1?"},
    {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.input.messages": json.dumps(MESSAGES),
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "2"}]}],
        "gen_ai.response.finish_reasons": ["stop"],
    },
    {
        "openinference.span.kind": "LLM",
        "llm.model_name": "small",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "1 + 1?",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "add",
        "llm.output_messages.0.message.content": "2",
        "llm.invocation_parameters": '{"temperature": 0.5}',
    },
    {
        "ai.operationId": "ai.generateText.doGenerate",
        "gen_ai.request.model": "small",
        "ai.prompt.messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]}]),
        "ai.prompt.tools": ['{"type": "function", "name": "add", "inputSchema": {}}'],
        "ai.response.text": "2",
    },
    {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add", "gen_ai.tool.call.arguments": '{"a": 1}'},
    {"http.request.method": "GET"},
]


@dataclass
class Result:
    """What came of a run; ``wrong`` says what should not have."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_health: float = 0.0
    machine: float = 0.0
    """Seconds that this script itself was kept waiting at most, by what else the machine did."""
    memory: list[int] = field(default_factory=list)
    """Bytes after each tenth of the requests."""
    traces: int = 0
    """Of the exporters, received whole."""


def run(requests: int, seed: int) -> Result:
    """Sends so many mutated requests to a receiver of its own."""
    result = Result()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/store.db"
        with _receiver(url, Path(folder) / "log") as (process, port):
            done = threading.Event()
            sent: list[set[str]] = [set() for _ in range(EXPORTERS)]
            beside = [
                threading.Thread(target=_export, args=(port, number, sent[number], done, result))
                for number in range(EXPORTERS)
            ]
            asking = _Health(port)
            numbers = iter(range(requests))
            clients = [
                threading.Thread(target=_attack, args=(port, seed, numbers, requests, process, result))
                for _ in range(CLIENTS)
            ]
            for thread in (*beside, *clients):
                thread.start()
            for thread in clients:
                thread.join()
            done.set()
            for thread in beside:
                thread.join()
            asking.end(result)
            process.terminate()
            if process.wait(timeout=ANSWER_SECONDS) != 0:
                result.wrong.append(f"the receiver ended with {process.returncode}")
        log = (Path(folder) / "log").read_text(errors="replace")
        if "Traceback" in log:
            result.wrong.append("in the receiver's log: " + log[log.index("Traceback") :][:3000])
        asyncio.run(_check(url, set().union(*sent), result))
    half = result.memory[len(result.memory) // 2 :]
    if half and half[-1] - half[0] > GROWTH:
        result.wrong.append(f"memory grew from {half[0] >> 20} to {half[-1] >> 20} MiB in the second half")
    return result


@contextmanager
def _receiver(url: str, log: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    arguments = ["otel", "receive", "--port", "0", "--store", url, "--settle", "0.2"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process, int(process.stdout.readline().strip().rpartition(":")[2])
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _attack(
    port: int, seed: int, numbers: Iterator[int], requests: int, process: subprocess.Popen[str], result: Result
) -> None:
    for number in numbers:
        rng = random.Random(f"{seed} {number}")
        path, mutant = _mutant(rng)
        if rng.random() < 0.05:
            _leave(port, path, mutant, rng)
            result.statuses["left in the middle"] += 1
        else:
            status = _post(port, path, mutant.content, mutant.headers)
            result.statuses[status] += 1
            if not status.isdecimal() or int(status) == 500:
                result.wrong.append(f"request {number}: {status}: {', '.join(mutant.changes)}")
        if (number + 1) % max(requests // 10, 1) == 0:
            result.memory.append(psutil.Process(process.pid).memory_info().rss)


def _mutant(rng: random.Random) -> tuple[str, Mutant]:
    logs = rng.random() < 0.2
    message = _logs(rng) if logs else _traces(rng, f"{rng.getrandbits(128):032x}", rng.sample(ATTRIBUTES, 3), "odd")
    path = "/v1/logs" if logs else "/v1/traces"
    if rng.random() < 0.5:
        return path, mutate(_as_json(message), rng)
    changes = [change(message, rng) for change in rng.choices(MESSAGE_CHANGES, k=rng.choice((1, 1, 2, 3)))]
    mutant = Mutant(message.SerializeToString()[:MAX_BYTES], {"content-type": PROTOBUF}, changes)
    if rng.random() < 0.5:
        alter = rng.choice(BYTE_CHANGES)
        mutant.content = alter(mutant.content, rng)
        mutant.changes.append(alter.__name__.strip("_"))
    return path, mutant


def _traces(
    rng: random.Random, trace: str, attributes: list[dict[str, Any]], service: str
) -> ExportTraceServiceRequest:
    score = {"gen_ai.evaluation.name": "correct", "gen_ai.evaluation.score.value": 1.0}
    spans = [
        Span(
            trace_id=bytes.fromhex(trace),
            span_id=(place + 1).to_bytes(8, "big"),
            parent_span_id=b"" if place == 0 else (1).to_bytes(8, "big"),
            name=f"step {place}",
            start_time_unix_nano=10**18 + place * 1000,
            end_time_unix_nano=10**18 + 5000,
            attributes=pairs_of(told),
            events=[Span.Event(name="gen_ai.evaluation.result", time_unix_nano=10**18, attributes=pairs_of(score))]
            if place == 0
            else [],
        )
        for place, told in enumerate(attributes)
    ]
    resource = Resource(attributes=pairs_of({"service.name": service}))
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    )


def _logs(rng: random.Random) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for name in ("gen_ai.client.inference.operation.details", "gen_ai.user.message", "gen_ai.choice"):
        record = scope.log_records.add(event_name=name, time_unix_nano=10**18)
        record.trace_id, record.span_id = rng.randbytes(16), rng.randbytes(8)
        record.attributes.extend(pairs_of({"gen_ai.input.messages": json.dumps(MESSAGES)}))
        record.body.CopyFrom(to_value({"content": "1 + 1?", "message": {"role": "assistant", "content": "2"}}))
    return request


def _as_json(message: Message) -> Any:
    """OTLP/JSON has ids in hexadecimal."""

    def hexadecimal(value: Any) -> Any:
        if isinstance(value, list):
            return [hexadecimal(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            name: base64.b64decode(item).hex() if name in ("traceId", "spanId", "parentSpanId") else hexadecimal(item)
            for name, item in value.items()
        }

    return hexadecimal(json_format.MessageToDict(message, use_integers_for_enums=True))


def _entries(message: Any) -> list[Any]:
    groups = message.resource_spans if hasattr(message, "resource_spans") else message.resource_logs
    scopes = [scope for group in groups for scope in getattr(group, "scope_spans", None) or group.scope_logs]
    return [entry for scope in scopes for entry in (scope.spans if hasattr(scope, "spans") else scope.log_records)]


def _odd_attribute(message: Any, rng: random.Random) -> str:
    pair = rng.choice(rng.choice(_entries(message)).attributes)
    pair.value.CopyFrom(to_value(rng.choice(ODD_VALUES)))
    return f"odd {pair.key}"


def _odd_json_in_an_attribute(message: Any, rng: random.Random) -> str:
    pair = rng.choice(rng.choice(_entries(message)).attributes)
    pair.value.string_value = mutate(MESSAGES, rng).content.decode(errors="replace")
    return f"odd JSON in {pair.key}"


def _odd_id(message: Any, rng: random.Random) -> str:
    name = rng.choice(("trace_id", "span_id"))
    setattr(rng.choice(_entries(message)), name, rng.randbytes(rng.choice((0, 1, 8, 16, 40))))
    return f"odd {name}"


def _odd_time(message: Any, rng: random.Random) -> str:
    entry = rng.choice(_entries(message))
    names = [field.name for field in entry.DESCRIPTOR.fields if field.name.endswith("unix_nano")]
    name = rng.choice(names)
    setattr(entry, name, rng.choice((0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)))
    return f"odd {name}"


def _in_a_circle(message: Any, rng: random.Random) -> str:
    for entry in _entries(message):
        if hasattr(entry, "parent_span_id"):
            entry.parent_span_id = entry.span_id
    return "each its own parent"


def _many(message: Any, rng: random.Random) -> str:
    entry = rng.choice(_entries(message))
    entry.attributes.extend(pairs_of({f"{rng.choice(FAMILIES)}.{n}.role": n for n in range(rng.choice((10, 2000)))}))
    return "many attributes"


FAMILIES = ("gen_ai.prompt", "gen_ai.completion", "llm.input_messages", "llm.tools", "retrieval.documents")
MESSAGE_CHANGES: tuple[Callable[[Any, random.Random], str], ...] = (
    _odd_attribute,
    _odd_attribute,
    _odd_json_in_an_attribute,
    _odd_json_in_an_attribute,
    _odd_id,
    _odd_time,
    _in_a_circle,
    _many,
)


def _post(port: int, path: str, body: bytes, headers: dict[str, str]) -> str:
    """The status, or why there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({type(error).__name__}: {error})"
    finally:
        connection.close()


def _leave(port: int, path: str, mutant: Mutant, rng: random.Random) -> None:
    """Sends a part of a request and goes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.putrequest("POST", path)
        connection.putheader("content-type", mutant.headers["content-type"])
        connection.putheader("content-length", str(len(mutant.content) + 10))
        connection.endheaders(mutant.content[: rng.randrange(len(mutant.content) + 1)])
    except OSError:
        pass
    finally:
        connection.close()


def _export(port: int, number: int, sent: set[str], done: threading.Event, result: Result) -> None:
    """Sends traces in order, each in two requests, until ``done``."""
    rng = random.Random(number)
    while not done.is_set():
        trace = f"{rng.getrandbits(128):032x}"
        request = _traces(rng, trace, ATTRIBUTES, f"healthy-{number}")
        spans = request.resource_spans[0].scope_spans[0].spans
        second = ExportTraceServiceRequest.FromString(request.SerializeToString())
        del spans[3:]
        del second.resource_spans[0].scope_spans[0].spans[:3]
        for part in (second, request):  # the root comes last
            status = _post(port, "/v1/traces", part.SerializeToString(), {"content-type": PROTOBUF})
            if status != "200":
                result.wrong.append(f"an exporter in order was answered {status}")
        sent.add(trace)
        done.wait(0.01)


class _Health:
    """Somebody who asks for /health until `end`, in a process of its own: this one's other threads hold its lock."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._done = context.Event()
        self._reports, other = context.Pipe(duplex=False)
        self._process = context.Process(target=_ask_for_health, args=(port, self._done, other), daemon=True)
        self._process.start()

    def end(self, result: Result) -> None:
        self._done.set()
        if not self._reports.poll(ANSWER_SECONDS):
            raise TimeoutError("whoever asks for /health does not end")
        result.slowest_health, result.machine, wrong = self._reports.recv()
        result.wrong += wrong
        self._process.join()


def _ask_for_health(port: int, done: Event, reports: Connection) -> None:
    slowest = machine = 0.0
    wrong: list[str] = []
    while not done.is_set():
        began = time.monotonic()
        time.sleep(0.02)
        machine = max(machine, time.monotonic() - began - 0.02)
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status != 200:
                wrong.append("/health is not well")
        except (OSError, http.client.HTTPException) as error:
            wrong.append(f"/health did not answer: {error}")
        finally:
            connection.close()
        slowest = max(slowest, time.monotonic() - began)
    reports.send((slowest, machine, wrong))


async def _check(url: str, sent: set[str], result: Result) -> None:
    """Whether the exporters' traces are there, whole, and finished."""
    store = open_store(f"{url}?mode=ro")
    for number in range(EXPORTERS):
        for rollout in await store.rollouts(f"otel-healthy-{number}"):
            spans = await store.spans(rollout.id)
            told = (rollout.status, rollout.total_reward, len(spans))
            if told == ("succeeded", 1.0, len(ATTRIBUTES) + 1):
                result.traces += 1
            else:
                result.wrong.append(f"trace {rollout.id} of an exporter in order is {told}")
            sent.discard(rollout.id)
    if sent:
        result.wrong.append(f"{len(sent)} traces of exporters in order are not there")
    for run in await store.runs():
        open = [rollout.id for rollout in await store.rollouts(run.id) if not rollout.finished]
        if open:
            result.wrong.append(f"{len(open)} rollouts of {run.id} never ended")
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    result = run(arguments.requests, arguments.seed)
    print(f"{arguments.requests} requests, seed {arguments.seed}, {time.monotonic() - began:.0f} s")
    for status, count in sorted(result.statuses.items()):
        print(f"  {count:5} {status}")
    print(f"  {result.traces} traces of exporters in order beside them, received whole")
    print(f"  /health: {result.slowest_health * 1000:.0f} ms at the slowest", end=" ")
    print(f"(this machine kept the script itself waiting {result.machine * 1000:.0f} ms)")
    print(f"  memory: {' '.join(f'{size >> 20}' for size in result.memory)} MiB")
    if result.slowest_health > HEALTH_SECONDS + result.machine:
        result.wrong.append(f"/health took {result.slowest_health:.1f} s")
    for wrong in result.wrong[:20]:
        print(f"WRONG: {wrong}")
    sys.exit(1 if result.wrong else 0)


if __name__ == "__main__":
    main()
