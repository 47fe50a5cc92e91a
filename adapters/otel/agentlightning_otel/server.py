"""OTLP over HTTP: ``POST /v1/traces``, ``POST /v1/logs``, and ``GET /health``.

https://opentelemetry.io/docs/specs/otlp/#otlphttp says which answer means what. Two threads, an event loop in each: one
speaks HTTP and does nothing that takes long, so that it always answers; the other records. Bodies are read in further
threads, two at most: one of the small, and one of the large, which nobody else waits for.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from google.protobuf.message import Message
from google.rpc.code_pb2 import INVALID_ARGUMENT, UNAVAILABLE
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlightning.adapterkit.listening import listen
from agentlightning.errors import StoreError
from agentlightning.store import open_store
from agentlightning_otel.errors import OtlpError, PayloadError
from agentlightning_otel.incoming import Received, read_logs, read_traces
from agentlightning_otel.payloads import JSON, MAX_BODY_BYTES, PROTOBUF, decode, encode, media_type, unpack
from agentlightning_otel.receiver import SETTLE_SECONDS, Receiver
from agentlightning_otel.values import shortened

logger = logging.getLogger(__name__)

PORT = 4318
"""The port of OTLP/HTTP."""
MAX_WAITING_BYTES = 2 * MAX_BODY_BYTES
"""Of bodies that have come and are not recorded yet."""
LARGE_BYTES = 4 * 1024**2
"""From which on a body, unpacked, waits for its turn."""
BODY_SECONDS = 30.0
"""How long a client may take to send a body."""
RETRY_SECONDS = 5
SHUTDOWN_SECONDS = 5
MAX_REASONS = 3
MAX_MESSAGE = 2000
"""Characters."""

_Read = Callable[[bytes], Received]


class _Refused(NamedTuple):
    """Why a request was not recorded, and the HTTP status of that.

    An exception that crosses threads would keep its frames, with the body and all that was read of it, until the
    garbage collector comes.
    """

    reason: str
    status: int


class OtlpServer:
    """Receives traces into the store at a URL::

        with OtlpServer("sqlite:///runs/agentlightning.db") as server:
            print(server.endpoint)

    ``run`` and ``settle`` are those of `Receiver`. The port (0: any that is free) is bound on construction.
    Raises `OtlpError` where it cannot be had, and `StoreError` from `start` where the store cannot.
    """

    def __init__(
        self,
        store: str,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        run: str | None = None,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._store = store
        self._options: dict[str, Any] = {"run": run, "settle": settle}
        self._socket = _bind(host, port)
        self._free_bytes = MAX_WAITING_BYTES
        self._small, self._large = asyncio.Semaphore(1), asyncio.Semaphore(1)
        self._running = ExitStack()
        self._recording: BlockingPortal
        self._receiver: Receiver
        traces = self._answer(ExportTraceServiceRequest, read_traces, ExportTraceServiceResponse, "rejected_spans")
        logs = self._answer(ExportLogsServiceRequest, read_logs, ExportLogsServiceResponse, "rejected_log_records")
        routes = [
            Route("/v1/traces", traces, methods=["POST"]),
            Route("/v1/logs", logs, methods=["POST"]),
            Route("/health", _health, methods=["GET"]),
        ]
        app = Starlette(routes=routes)
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"}
        self._http = uvicorn.Server(
            uvicorn.Config(app, loop="asyncio", timeout_graceful_shutdown=SHUTDOWN_SECONDS, **quiet)
        )

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set to."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def finished(self) -> int:
        """Rollouts finished so far."""
        return self._receiver.finished

    def start(self) -> None:
        """Opens the store and begins to answer. Raises `StoreError`."""
        with ExitStack() as running:
            running.callback(self._socket.close)
            self._recording = running.enter_context(start_blocking_portal(name="agentlightning-otel-recording"))
            store = open_store(self._store)
            running.callback(self._recording.call, store.close)
            self._receiver = Receiver(store, **self._options)
            running.enter_context(self._recording.wrap_async_context_manager(self._receiver))
            run = partial(self._http.run, [self._socket])
            thread = threading.Thread(target=run, name="agentlightning-otel-http", daemon=True)
            thread.start()
            running.callback(thread.join)
            running.callback(setattr, self._http, "should_exit", True)
            self._running = running.pop_all()

    def stop(self) -> None:
        """Answers what came in, finishes every rollout as it stands, closes the store. Raises `StoreError`."""
        self._running.close()
        self._socket.close()

    def __enter__(self) -> OtlpServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(
        self, request_type: type[Message], read: Callable[[Any], Received], response_type: Any, rejected: str
    ) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of one signal; ``rejected`` is the field for what could not be used."""

        def read_body(media: str, body: bytes) -> Received:
            message, dropped = decode(body, media, request_type)
            received = read(message)
            return received._replace(dropped=[*dropped, *received.dropped])

        async def answer(request: Request) -> Response:
            media = media_type(request.headers.get("content-type", ""))
            encoding = request.headers.get("content-encoding", "")
            try:
                async with self._body(request) as body:
                    recording = self._recording.start_task_soon(self._record, body, encoding, partial(read_body, media))
                    received = await asyncio.wrap_future(recording)
            except ClientDisconnect:
                return Response(status_code=400)  # to nobody: the client has gone
            except PayloadError as error:
                received = _Refused(str(error), error.status)
            if isinstance(received, _Refused):
                logger.warning("refused what %s sent: %s", request.client and request.client.host, received.reason)
                code = UNAVAILABLE if received.status == 503 else INVALID_ARGUMENT
                status = Status(code=code, message=shortened(received.reason, MAX_MESSAGE))
                return _response(media, status, received.status)
            response = response_type()
            message = _unused(received)
            if message:
                unused = len(received.rejected) + len(received.dropped)
                logger.warning("could not use %d of what was received: %s", unused, message)
                setattr(response.partial_success, rejected, len(received.rejected))
                response.partial_success.error_message = message
            return _response(media, response, 200)

        return answer

    @asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, as it was sent; its bytes count until the context ends.

        Raises `PayloadError`: 413 where it is too large, 408 where it does not come, and 503 where too much waits.
        """
        body = bytearray()
        try:
            await self._receive(request, body)
            yield bytes(body)
        finally:
            self._free_bytes += len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    self._free_bytes -= len(chunk)
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise PayloadError(f"the body is larger than {MAX_BODY_BYTES // 1024**2} MiB", 413)
                    if self._free_bytes < 0:
                        waiting = f"more than {MAX_WAITING_BYTES // 1024**2} MiB wait to be recorded"
                        raise PayloadError(f"{waiting}; send it again later", 503)
        except TimeoutError:
            raise PayloadError(f"the body did not come within {BODY_SECONDS:g} s", 408) from None

    async def _record(self, body: bytes, encoding: str, read: _Read) -> Received | _Refused:
        """Records a body, as far as it can be read.

        One body is read at a time, for Python runs one thread at a time; and beside it one large one, until it is
        recorded.
        """
        try:
            if len(body) < LARGE_BYTES:
                async with self._small:
                    received = await asyncio.to_thread(_unpack_and_read, body, encoding, LARGE_BYTES, read)
                if not isinstance(received, _Refused):
                    await self._receiver.receive(received.spans)
                if not isinstance(received, _Refused) or received.status != 413:
                    return received
            async with self._large:
                received = await asyncio.to_thread(_unpack_and_read, body, encoding, MAX_BODY_BYTES, read)
                if not isinstance(received, _Refused):
                    await self._receiver.receive(received.spans)
                return received
        except StoreError as error:
            logger.error("the store did not take what was received: %s", error)
            return _Refused(str(error), 503)


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _unpack_and_read(body: bytes, encoding: str, limit: int, read: _Read) -> Received | _Refused:
    try:
        return read(unpack(body, encoding, min(limit, MAX_BODY_BYTES)))
    except PayloadError as error:
        return _Refused(str(error), error.status)


def _bind(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise OtlpError(
            f"cannot listen on {host}:{port}: {error}; --port names another port, 0 any free one"
        ) from error


def _response(media: str, message: Message, status: int) -> Response:
    media = media if media == JSON else PROTOBUF
    again = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return Response(encode(message, media), status, again, media_type=media)


def _unused(received: Received) -> str:
    """What could not be used, and why; empty where everything could."""
    reasons = {"rejected": received.rejected, "left out": received.dropped}
    return "; ".join(f"{what}: {_first(some)}" for what, some in reasons.items() if some)


def _first(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
    return "; ".join(shortened(reason) for reason in reasons[:MAX_REASONS]) + more
