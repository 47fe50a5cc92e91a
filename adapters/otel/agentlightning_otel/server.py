"""OTLP over HTTP: ``POST /v1/traces`` and ``POST /v1/logs``, on a thread and an event loop of its own.

https://opentelemetry.io/docs/specs/otlp/#otlphttp says which answer means what.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import uvicorn
from google.protobuf.message import Message
from google.rpc.code_pb2 import INVALID_ARGUMENT, UNAVAILABLE
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlightning.errors import StoreError
from agentlightning.store import open_store
from agentlightning_otel.errors import OtlpError, PayloadError
from agentlightning_otel.pieces import Pieces, pieces_of_logs, pieces_of_traces
from agentlightning_otel.receiver import SETTLE_SECONDS, Receiver
from agentlightning_otel.wire import JSON, LARGEST, PROTOBUF, decode, encode

logger = logging.getLogger(__name__)

PORT = 4318
"""The port of OTLP/HTTP."""
RETRY_SECONDS = 5
TOLD_REJECTIONS = 3


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
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._receiver: Receiver | None = None
        config = uvicorn.Config(
            self._app(), log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="agentlightning-otel", daemon=True
        )

    @property
    def endpoint(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set to."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def finished(self) -> int:
        """Rollouts finished so far."""
        return self._receiver.finished if self._receiver is not None else 0

    def start(self) -> None:
        """Opens the store and begins to answer. Raises `StoreError`."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Answers what came in, finishes every rollout as it stands, closes the store. Raises `StoreError`."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> OtlpServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _app(self) -> Starlette:
        routes = [
            Route("/v1/traces", self._answer(self._traces), methods=["POST"]),
            Route("/v1/logs", self._answer(self._logs), methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _serve(self) -> None:
        try:
            store = open_store(self._store)
            try:
                async with Receiver(store, **self._options) as self._receiver:
                    self._ready.set()
                    await self._server.serve([self._socket])
            finally:
                await store.close()
        except Exception as error:  # noqa: BLE001 - raised by whoever starts or stops it
            self._failure = error
        finally:
            self._ready.set()

    def _answer(
        self, export: Callable[[bytes, Request], Awaitable[Message]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return _response(request, await export(await _body(request), request), 200)
            except PayloadError as error:
                logger.warning("refused what %s sent: %s", request.client and request.client.host, error)
                return _response(request, Status(code=INVALID_ARGUMENT, message=str(error)), error.status)
            except StoreError as error:
                logger.error("the store did not take what was received: %s", error)
                told = Status(code=UNAVAILABLE, message=str(error))
                return _response(request, told, 503, {"Retry-After": str(RETRY_SECONDS)})

        return answer

    async def _traces(self, body: bytes, request: Request) -> Message:
        found = pieces_of_traces(decode(body, *_form(request), ExportTraceServiceRequest, "resourceSpans"))
        await self._take(found)
        answer = ExportTraceServiceResponse()
        if found.rejected:
            partial = ExportTracePartialSuccess(rejected_spans=len(found.rejected), error_message=_told(found.rejected))
            answer.partial_success.CopyFrom(partial)
        return answer

    async def _logs(self, body: bytes, request: Request) -> Message:
        found = pieces_of_logs(decode(body, *_form(request), ExportLogsServiceRequest, "resourceLogs"))
        await self._take(found)
        answer = ExportLogsServiceResponse()
        if found.rejected:
            partial = ExportLogsPartialSuccess(
                rejected_log_records=len(found.rejected), error_message=_told(found.rejected)
            )
            answer.partial_success.CopyFrom(partial)
        return answer

    async def _take(self, pieces: Pieces) -> None:
        if pieces.rejected:
            logger.warning("could not use %d of what was received: %s", len(pieces.rejected), _told(pieces.rejected))
        if pieces.found and self._receiver is not None:
            await self._receiver.receive(pieces.found)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OtlpError(
            f"cannot listen on {host}:{port}: {error}; --port names another port, 0 any free one"
        ) from error


def _form(request: Request) -> tuple[str, str]:
    return request.headers.get("content-type", ""), request.headers.get("content-encoding", "")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise PayloadError(f"the body is larger than {LARGEST // 1024**2} MiB", 413)
    return bytes(body)


def _response(request: Request, message: Message, status: int, headers: dict[str, str] | None = None) -> Response:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    media = media if media == JSON else PROTOBUF
    return Response(encode(message, media), status, headers, media_type=media)


def _told(rejected: list[str]) -> str:
    more = f"; and {len(rejected) - TOLD_REJECTIONS} more" if len(rejected) > TOLD_REJECTIONS else ""
    return "; ".join(rejected[:TOLD_REJECTIONS]) + more
