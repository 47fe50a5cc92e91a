"""OTLP over HTTP: ``POST /v1/traces``, ``POST /v1/logs``, and ``GET /health``, on a thread and a loop of its own.

https://opentelemetry.io/docs/specs/otlp/#otlphttp says which answer means what.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from functools import partial
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlightning.errors import StoreError
from agentlightning.store import open_store
from agentlightning_otel.errors import OtlpError, PayloadError
from agentlightning_otel.intake import Intake
from agentlightning_otel.pieces import Pieces, pieces_of_logs, pieces_of_traces
from agentlightning_otel.receiver import SETTLE_SECONDS, Receiver
from agentlightning_otel.text import clipped
from agentlightning_otel.wire import JSON, PROTOBUF, decode, encode

logger = logging.getLogger(__name__)

PORT = 4318
"""The port of OTLP/HTTP."""
RETRY_SECONDS = 5
TOLD_REASONS = 3
LONGEST_TOLD = 2000


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
        self._intake = Intake()
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
            Route("/v1/traces", self._answer(_read_traces, self._traces), methods=["POST"]),
            Route("/v1/logs", self._answer(_read_logs, self._logs), methods=["POST"]),
            Route("/health", _health, methods=["GET"]),
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
        self, read: Callable[[str, bytes], Pieces], keep: Callable[[Pieces], Awaitable[Message]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            media, encoding = (request.headers.get(name, "") for name in ("content-type", "content-encoding"))
            try:
                async with self._intake.body(request) as body:
                    told = await self._intake.record(body, encoding, partial(read, media), keep)
                return _response(media, told, 200)
            except ClientDisconnect:
                return Response(status_code=400)  # to nobody: the client has gone
            except PayloadError as error:
                logger.warning("refused what %s sent: %s", request.client and request.client.host, error)
                code = UNAVAILABLE if error.status == 503 else INVALID_ARGUMENT
                return _response(media, Status(code=code, message=clipped(error, LONGEST_TOLD)), error.status)
            except StoreError as error:
                logger.error("the store did not take what was received: %s", error)
                return _response(media, Status(code=UNAVAILABLE, message=clipped(error, LONGEST_TOLD)), 503)

        return answer

    async def _traces(self, pieces: Pieces) -> Message:
        told = await self._take(pieces)
        answer = ExportTraceServiceResponse()
        if told:
            partial = ExportTracePartialSuccess(rejected_spans=len(pieces.rejected), error_message=told)
            answer.partial_success.CopyFrom(partial)
        return answer

    async def _logs(self, pieces: Pieces) -> Message:
        told = await self._take(pieces)
        answer = ExportLogsServiceResponse()
        if told:
            partial = ExportLogsPartialSuccess(rejected_log_records=len(pieces.rejected), error_message=told)
            answer.partial_success.CopyFrom(partial)
        return answer

    async def _take(self, pieces: Pieces) -> str:
        """Records what can be used; returns what is to be said of the rest."""
        told = "; ".join(
            f"{what}: {_some(reasons)}"
            for what, reasons in (("rejected", pieces.rejected), ("left out", pieces.dropped))
            if reasons
        )
        if told:
            logger.warning("could not use %d of what was received: %s", len(pieces.rejected + pieces.dropped), told)
        if pieces.found and self._receiver is not None:
            await self._receiver.receive(pieces.found)
        return told


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _read_traces(media: str, body: bytes) -> Pieces:
    request, dropped = decode(body, media, ExportTraceServiceRequest, "resourceSpans")
    pieces = pieces_of_traces(request)
    return pieces._replace(dropped=[*dropped, *pieces.dropped])


def _read_logs(media: str, body: bytes) -> Pieces:
    request, dropped = decode(body, media, ExportLogsServiceRequest, "resourceLogs")
    pieces = pieces_of_logs(request)
    return pieces._replace(dropped=[*dropped, *pieces.dropped])


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OtlpError(
            f"cannot listen on {host}:{port}: {error}; --port names another port, 0 any free one"
        ) from error


def _response(media: str, message: Message, status: int) -> Response:
    media = media.partition(";")[0].strip().lower()
    media = media if media == JSON else PROTOBUF
    again = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return Response(encode(message, media), status, again, media_type=media)


def _some(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - TOLD_REASONS} more" if len(reasons) > TOLD_REASONS else ""
    return "; ".join(clipped(reason) for reason in reasons[:TOLD_REASONS]) + more
