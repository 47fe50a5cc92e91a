"""The routes of the server: the store's methods, sessions, feedback, and whether it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.loading import explain
from agentlightning.records import decode, encode
from agentlightning.redaction import redact
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server import calls, openapi, scope, wire
from agentlightning_server.bodies import Bodies
from agentlightning_server.errors import RequestError
from agentlightning_server.feedback import FeedbackKeeper
from agentlightning_server.gateway.access import Access
from agentlightning_server.gateway.fast_path import FastPath
from agentlightning_server.gateway.routes import Gateway
from agentlightning_server.gateway.upstreams import Upstream
from agentlightning_server.keys import Grant, Keys
from agentlightning_server.methods import FEEDBACK, METHODS, Feedback, Method
from agentlightning_server.monitor.monitor import Monitor
from agentlightning_server.monitor.requests import MeasuredRequests
from agentlightning_server.monitor.routes import MonitorRoutes
from agentlightning_server.sessions import Session, Sessions
from agentlightning_server.training.manager import TrainingManager
from agentlightning_server.training.routes import TrainingRoutes

logger = logging.getLogger(__name__)

LARGE_BYTES = 32 * 1024
"""Of a body that is read in a thread, so that others do not wait."""
MAX_FEEDBACK_BYTES = 64 * 1024
MAX_KNOWN_ROLLOUTS = 100_000
RETRY_SECONDS = 1
JSON = "application/json"
CLIENT_LEFT = 499

Handler = Callable[[Request, Grant], Awaitable[Response]]


class App:
    """Answers for a store, which it closes at its end (`running`)."""

    def __init__(
        self,
        store: SQLiteStore,
        sessions: Sessions,
        keys: Keys,
        monitor: Monitor,
        trainings: TrainingManager | None = None,
        upstreams: Sequence[Upstream] = (),
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._keys = keys
        self._bodies = Bodies()
        self._feedback = FeedbackKeeper(store)
        self._monitor = monitor
        self._runs: dict[str, str] = {}
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gateway = Gateway(store, upstreams, Access(self._grant, self._bodies, self._run_of))
        self.starlette = Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                Route("/openapi.json", self._describe, methods=["GET"]),
                Route("/v1/store/{method}", self._granted(self._call, rollout_keys=True), methods=["POST"]),
                Route("/v1/session", self._granted(self._keep_alive, rollout_keys=True), methods=["POST"]),
                Route("/v1/session", self._granted(self._leave, rollout_keys=True), methods=["DELETE"]),
                Route("/v1/feedback", self._granted(self._add_feedback, rollout_keys=True), methods=["POST"]),
                *self._gateway.routes(),
                *MonitorRoutes(store, sessions, monitor).routes(self._granted),
                *TrainingRoutes(trainings, self._bodies).routes(self._granted),
            ],
        )
        self.asgi = MeasuredRequests(FastPath(self.starlette, self._gateway.calls), monitor.metrics)
        """What a server of HTTP calls."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sessions are looked after inside the block; at its end the store is closed. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        looking = asyncio.create_task(self._look_after_sessions())
        self._gateway.start()
        try:
            async with self._monitor.running(self._store):
                yield
        finally:
            looking.cancel()
            await self._gateway.close()
            await self._store.close()

    def stop_soon(self) -> None:
        """Lets go of whoever waits for what may take long; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)

    async def _look_after_sessions(self) -> None:
        while True:
            await asyncio.sleep(self._sessions.interval)
            try:
                await self._sessions.look_after()
            except StoreError:
                logger.exception("the sessions could not be renewed; it is tried again")

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(openapi.describe())

    def _granted(self, handler: Handler, *, rollout_keys: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint of a handler: only for whoever has a key, and with every error as an answer that says it.

        A handler that looks at `Grant.rollout` itself is for those with a key for one rollout as well.
        """

        async def endpoint(request: Request) -> Response:
            try:
                grant = self._grant(request)
                if grant.rollout is not None and not rollout_keys:
                    raise RequestError(403, f"this key is for rollout {grant.rollout} alone")
            except RequestError as error:
                with suppress(ClientDisconnect, TimeoutError):
                    await self._bodies.drain(request)
                return _problem(error.status, error)
            try:
                return await handler(request, grant)
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            except RequestError as error:
                return _problem(error.status, error)
            except StoreBusyError as error:
                return _problem(409, error)
            except StoreError as error:
                return _problem(422, error)
            except Exception as error:
                logger.exception("%s %s failed", request.method, request.url.path)
                return _problem(500, StoreError(f"the server failed: {explain(error)}; its log says more"))

        return endpoint

    def _grant(self, request: Request) -> Grant:
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        if not self._keys.required and host not in wire.LOOPBACK:
            # A page of any site can have its name lead to this machine, and a browser ask here.
            raise RequestError(403, f"without a key only {wire.LOOPBACK[0]} is answered, not {host}")
        return self._keys.grant(request.headers.get("authorization"))

    async def _call(self, request: Request, grant: Grant) -> Response:
        method = METHODS.get(request.path_params["method"])
        async with self._bodies.of(request) as body:
            if method is None:
                raise RequestError(404, f"a store has no method {request.path_params['method']!r}")
            arguments = await _arguments(request, method, body)
            await scope.refuse_what_is_not_granted(grant, method, arguments, self._run_of)
            scope.narrow(grant, method, arguments)
            session = self._session(request)
            if session is None:
                if method.access == "write":
                    raise RequestError(
                        400, f"{method.name} writes: the header {wire.SESSION} must say for which session"
                    )
                result = await calls.call(self._store, method, arguments, self._stopping)
            else:
                result = await self._in_session(session, request, method, arguments)
        result = scope.shown(grant, method, result)
        return Response(encode(result), media_type=wire.CONTENT_TYPE)

    async def _in_session(self, session: Session, request: Request, method: Method, arguments: Any) -> Any:
        number, answered = _number(request, wire.REQUEST), _number(request, wire.ANSWERED) or 0
        again = wire.AGAIN in request.headers

        async def work() -> Any:
            if method.name == "lease":
                return await calls.lease(session, arguments, again=again)
            if method.name == "finish":
                return await calls.finish(session, arguments.rollout, again=again)
            return await calls.call(session.store, method, arguments, self._stopping)

        session.active += 1
        try:
            if method.access == "read" or number is None:
                return await work()
            session.writes = True
            return await session.once(number, answered, work)
        finally:
            session.active -= 1

    def _session(self, request: Request) -> Session | None:
        token = request.headers.get(wire.SESSION)
        return None if token is None else self._sessions.heard(token, request.headers.get(wire.CLIENT, ""))

    async def _keep_alive(self, request: Request, grant: Grant) -> Response:
        if self._session(request) is None:
            raise RequestError(400, f"the header {wire.SESSION} must say which session is alive")
        return _json(wire.SessionAnswer(keep_alive_seconds=self._sessions.interval))

    async def _leave(self, request: Request, grant: Grant) -> Response:
        await self._sessions.end(request.headers.get(wire.SESSION, ""), request.headers.get(wire.CLIENT, ""))
        return Response(status_code=204)

    async def _add_feedback(self, request: Request, grant: Grant) -> Response:
        _expect(request, JSON)
        async with self._bodies.of(request, MAX_FEEDBACK_BYTES) as body:
            try:
                feedback = msgspec.json.decode(body, type=Feedback)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise RequestError(400, f"the body is no feedback: {error}") from None
        call = await self._feedback.call(feedback, grant, self._run_of)
        rollout_id = call.rollout_id if call is not None else str(feedback.rollout_id)
        named = msgspec.structs.replace(feedback, rollout_id=rollout_id)
        await scope.refuse_what_is_not_granted(grant, FEEDBACK, named, self._run_of)
        return JSONResponse(await self._feedback.add(feedback, rollout_id, call))

    async def _run_of(self, rollout: str) -> str | None:
        """The run of a rollout, which never changes."""
        if rollout not in self._runs:
            found = await self._store.rollout(rollout)
            if found is None:
                return None
            if len(self._runs) >= MAX_KNOWN_ROLLOUTS:
                self._runs.clear()
            self._runs[rollout] = found.run_id
        return self._runs[rollout]


async def _arguments(request: Request, method: Method, body: bytes) -> Any:
    _expect(request, wire.CONTENT_TYPE)

    def read() -> Any:
        try:
            arguments: Any = decode(body, method.arguments)
        except Exception as error:  # noqa: BLE001 - an array of a wrong length, nesting without end: all of it is bad input
            raise RequestError(400, f"the body does not hold the arguments of {method.name}: {error}") from None
        calls.refuse_what_no_store_holds(arguments)
        return arguments

    return await asyncio.to_thread(read) if len(body) > LARGE_BYTES else read()


def _expect(request: Request, content_type: str) -> None:
    """Raises `RequestError` for another content type: also because no page of another site may send these."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != content_type:
        raise RequestError(415, f"expected a body of the content type {content_type}")


def _number(request: Request, header: str) -> int | None:
    text = request.headers.get(header)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise RequestError(400, f"the header {header}: expected a whole number")
    return int(text)


def _problem(status: int, error: Exception) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return _json(wire.Problem(error=type(error).__name__, message=redact(str(error))), status, headers)


def _json(value: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type=JSON)
