"""The HTTP server of the gateway: the OpenAI API, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentlightning.adapterkit.listening import listen
from agentlightning.errors import PolicyError
from agentlightning_gateway.api_chat import ChatApi
from agentlightning_gateway.api_responses import ResponsesApi
from agentlightning_gateway.api_text import TextApi
from agentlightning_gateway.chat import BYTES_PER_TOKEN
from agentlightning_gateway.completions import Completions, RequestHandle
from agentlightning_gateway.config import KEY_VARIABLE
from agentlightning_gateway.openapi import describe
from agentlightning_gateway.protocol import ApiError, GenerationRequest
from agentlightning_gateway.sessions import Prompt

ROLLOUT_HEADER = "x-agentlightning-rollout"
MAX_ROLLOUT_ID = 256
CLIENT_LEFT = 499
KEEP_ALIVE_SECONDS = 600
"""How long a connection may be idle. Clients give theirs up after seconds; a server that does so as soon closes them
under the next request."""
LARGE = 2**15
"""Bytes of a request that is read, rendered and tokenised on a thread of its own, so that others do not wait."""
LARGE_ANSWER = 2**11
"""Tokens, those shown beside them included, of an answer that is put into its shape on a thread of its own."""
FIELDS = 2**19
"""Bytes of a request beside its prompt: fields, tools."""
ESCAPED = 2
"""How much longer a prompt may be as JSON."""
DRAINED = 2**28
"""Bytes of a request that is too long which are read all the same, for its client to hear so."""


Prepare = Callable[[bytes, str], bytes]
OPERATIONS = {"/chat/completions": "chat", "/responses": "responses", "/completions": "text_completion"}


class Api(Protocol):
    """One API: reads a request, and gives the answer its shape, whole or as server-sent events."""

    def read(self, data: bytes, rollout: str | None) -> tuple[Any, GenerationRequest, list[Prompt]]: ...

    def whole(self, body: Any, handle: RequestHandle) -> dict[str, Any]: ...

    def chunks(self, body: Any, handle: RequestHandle) -> AsyncIterator[bytes]: ...


class Server:
    """Serves `Completions` at ``http://host:port``. The port is bound on construction, so a client may
    connect as soon as `start` has returned.

    ``prepare`` gives what is read in place of a request's body, and is told of which API it is: ``chat``, ``responses``
    or ``text_completion``. ``key`` is what every request must bring as its bearer token, if any. Raises `PolicyError`
    where the port is taken.
    """

    def __init__(
        self,
        completions: Completions,
        *,
        host: str,
        port: int,
        key: str | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self._completions = completions
        self._key = key
        self._prepare = prepare
        self._apis: dict[str, Api] = {
            "/chat/completions": ChatApi(completions),
            "/responses": ResponsesApi(completions),
            "/completions": TextApi(completions),
        }
        self._socket = _bind(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            self._app(),
            http="h11",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="agentlightning-gateway", daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answers what came in, then closes the port."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    async def _serve(self) -> None:
        try:
            await self._server.serve([self._socket])
        finally:
            await self._completions.aclose()

    def _app(self) -> Starlette:
        routes = [
            *(Route(path, self._answer(api, OPERATIONS[path]), methods=["POST"]) for path, api in self._apis.items()),
            Route("/models", self._models, methods=["GET"]),
        ]
        return Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                Route("/openapi.json", self._openapi, methods=["GET"]),
                Mount("/v1", routes=routes),
                Mount("/rollouts/{rollout}/v1", routes=routes),
            ],
            middleware=[Middleware(KeyCheck, key=self._key)] if self._key is not None else [],
            exception_handlers={ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _client_left},
        )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(describe(self._completions.info.name))

    async def _models(self, request: Request) -> Response:
        model = {"id": self._completions.info.name, "object": "model", "created": 0, "owned_by": "agentlightning"}
        return JSONResponse({"object": "list", "data": [model]})

    def _answer(self, api: Api, operation: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            rollout = request.path_params.get("rollout") or request.headers.get(ROLLOUT_HEADER)
            if rollout is not None and len(rollout) > MAX_ROLLOUT_ID:
                raise ApiError(400, f"the rollout's id is longer than {MAX_ROLLOUT_ID} characters")
            data = await self._body(request)
            if self._prepare is not None:
                data = self._prepare(data, operation)
            if len(data) > LARGE:
                body, generation_request, prompts = await asyncio.to_thread(api.read, data, rollout)
            else:
                body, generation_request, prompts = api.read(data, rollout)
            handle = self._completions.begin(generation_request, prompts)
            ready = handle.begun() if generation_request.stream else handle.finish()
            try:
                await _while_connected(ready, request)
            except BaseException:
                handle.cancel()
                raise
            if generation_request.stream:
                return StreamingResponse(_streamed(api.chunks(body, handle), handle), media_type="text/event-stream")
            return await _whole(functools.partial(api.whole, body, handle), handle)

        return answer

    async def _body(self, request: Request) -> bytes:
        """What was sent, all of it: a client that is not listened to until it is done does not read why it was refused.
        Raises `ApiError` for more than the context can hold."""
        context_length = self._completions.info.context_length
        limit = FIELDS + ESCAPED * BYTES_PER_TOKEN * context_length
        body, size = bytearray(), 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > DRAINED:
                break
            if size <= limit:
                body += chunk
        if size > limit:
            raise ApiError(
                413,
                f"the request is longer than {limit:,} bytes: the context of {context_length:,} tokens "
                "cannot hold so much",
                code="context_length_exceeded",
            )
        return bytes(body)


class KeyCheck:
    """Answers 401 to every request without the key, whatever it is for."""

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("authorization", "").encode() if scope["type"] == "http" else b""
        if secrets.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
            return
        wrong = (
            f"expected the policy's key as the API key: set the environment variable {KEY_VARIABLE} where agents run"
        )
        error = ApiError(401, wrong, code="invalid_api_key", type="authentication_error")
        await JSONResponse(error.body, status_code=401)(scope, receive, send)


async def _while_connected(ready: Awaitable[None], request: Request) -> None:
    """Waits for ``ready``. Raises `ClientDisconnect` where the client does not."""
    waiting = asyncio.ensure_future(ready)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({waiting, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        waiting.result()
    finally:
        waiting.cancel()
        disconnected.cancel()


async def _whole(shape: Callable[[], dict[str, Any]], handle: RequestHandle) -> Response:
    if handle.size > LARGE_ANSWER:
        response = await asyncio.to_thread(lambda: msgspec.json.encode(shape()))
    else:
        response = msgspec.json.encode(shape())
    return Response(response, media_type="application/json")


async def _streamed(chunks: AsyncIterator[bytes], handle: RequestHandle) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        handle.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _client_left(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)


def _api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return JSONResponse(error.body, status_code=error.status)


def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = f"{request.method} {request.url.path}"
    return JSONResponse(ApiError(status, f"the gateway does not serve {what}").body, status_code=status)


def _bind(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise PolicyError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror or error}; name a free port, or 0"
        ) from error
