"""Model calls on their way through: to an upstream and back, and into the store beside."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from agentlightning.errors import AdapterError
from agentlightning.recording import Recorder
from agentlightning_openai.request import Operation, path_of
from agentlightning_openai.router import RECORDED_HEADER, ROLLOUT_HEADER
from agentlightning_server.errors import RequestError
from agentlightning_server.gateway.access import CALL, LIST, Access, json_object
from agentlightning_server.gateway.capture import Capture
from agentlightning_server.gateway.forward import Exchange, Forwarder, Outgoing, UnreachableError
from agentlightning_server.gateway.gate import Gate
from agentlightning_server.gateway.recorders import Recorders, SpanWriter
from agentlightning_server.gateway.reply import Reply, client_leaves, passed_on
from agentlightning_server.gateway.routing import AGENT_HEADER, Destination, Routing
from agentlightning_server.keys import Grant

PASSED_ON = ("accept", "content-type", "openai-beta", "traceparent", "tracestate", "user-agent", "x-request-id")
"""Headers of a client that an upstream gets: any other may hold a secret, its key above all."""
VIA_HEADER = "x-agentlightning-gateway"
"""The gateway that a request came through, so that it is not sent round in a circle."""
MAX_AGENT = 200
MAX_MODELS_WITHOUT_TOKENS = 1000
REFUSED_STATUSES = (400, 422)
UNWATCHED_SECONDS = 0.05
"""How long a client may have left before it is noticed: to watch each of them takes time from those that stay."""


@dataclass(slots=True)
class Services:
    """What all routes of a gateway share."""

    access: Access
    gate: Gate
    routing: Routing
    forwarder: Forwarder
    recorders: Recorders
    writer: SpanWriter
    id: str


def new_gateway_id() -> str:
    return secrets.token_hex(8)


class ModelCalls:
    """The calls of one operation of the API."""

    def __init__(self, services: Services, operation: Operation) -> None:
        self._services = services
        self._operation = operation
        self._path = path_of(operation)

    async def handle(self, request: Request, grant: Grant, reply: Reply) -> None:
        """Answers a call. Raises what `agentlightning_server.gateway.access.Endpoint` turns into an answer."""
        services = self._services
        async with services.access.bodies.of(request) as body:
            original = json_object(request, body)
            rollout_id = await services.access.rollout_of(request, grant, CALL)
            headers = _headers(request, services.id)
            if rollout_id is None:
                answering = self._pass_on(body, headers, reply)
            elif RECORDED_HEADER in request.headers:
                answering = self._hand_on(rollout_id, request, original, headers, reply)
            else:
                answering = self._record(rollout_id, request, original, headers, reply)
            await _while_client_stays(request, answering)

    async def _pass_on(self, body: bytes, headers: dict[str, str], reply: Reply) -> None:
        """A call that is of no rollout: it is recorded nowhere."""
        async with self._services.gate.passing():
            outgoing = Outgoing(self._services.routing.default(), self._path, body, headers)
            await pass_back(await self._services.forwarder.open(outgoing), reply)

    async def _hand_on(
        self, rollout_id: str, request: Request, original: dict[str, Any], headers: dict[str, str], reply: Reply
    ) -> None:
        """A call of a rollout whose caller has applied its resources, and records it: the tokens that it has not asked
        for stay in the answer, so that it can."""
        async with self._services.gate.passing():
            self._services.recorders.present_attempt(rollout_id, request.path_params.get("attempt"))
            destination = self._services.routing.destination_as_asked(original, self._operation)
            content = _encoded(destination.body)
            outgoing = Outgoing(
                destination.upstreams, self._path, content, {**headers, ROLLOUT_HEADER: rollout_id}, rollout_id
            )
            await pass_back(await self._open(destination, outgoing), reply)

    async def _record(
        self, rollout_id: str, request: Request, original: dict[str, Any], headers: dict[str, str], reply: Reply
    ) -> None:
        services, agent = self._services, _agent(request)
        async with services.gate.passing():
            recorder = await services.recorders.of(rollout_id, request.path_params.get("attempt"))
            capture = Capture(recorder, self._operation, original, agent=agent)
            try:
                await self._answer(recorder, agent, capture, headers, reply)
            except (asyncio.CancelledError, ClientDisconnect):
                capture.client_left()
                raise
            except Exception as error:
                capture.fail(error, _failure_type(error))
                await services.writer.durable()
                raise

    async def _answer(
        self, recorder: Recorder, agent: str | None, capture: Capture, headers: dict[str, str], reply: Reply
    ) -> None:
        destination = self._services.routing.destination(recorder, agent, capture.original, self._operation)
        headers = {**headers, **destination.headers(recorder.rollout_id)}
        capture.sends(destination.body, destination.policy, routed_to=destination.routed_to)
        content = _encoded(destination.body)
        outgoing = Outgoing(
            destination.upstreams, self._path, content, headers, recorder.rollout_id, key=destination.key
        )
        capture.outgoing = outgoing
        exchange = await self._open(destination, outgoing, capture)
        try:
            capture.sent_to(exchange.upstream.url + self._path, is_redirected=destination.is_redirected)
            if exchange.is_stream:
                await self._stream(exchange, capture, reply)
            else:
                await self._whole(exchange, capture, reply)
        finally:
            exchange.close()

    async def _open(self, destination: Destination, outgoing: Outgoing, capture: Capture | None = None) -> Exchange:
        """An upstream may refuse to be asked for tokens, as most providers do: then it is asked without, and from now
        on for this model."""
        exchange = await self._services.forwarder.open(outgoing)
        plain = destination.without_tokens
        if plain is None or exchange.status not in REFUSED_STATUSES:
            return exchange
        exchange.close()
        outgoing = replace(outgoing, content=_encoded(plain))
        if capture is not None:
            capture.sends(plain, None)
            capture.outgoing = outgoing
        exchange = await self._services.forwarder.open(outgoing)
        known = destination.upstreams.without_tokens
        if exchange.status not in REFUSED_STATUSES and len(known) < MAX_MODELS_WITHOUT_TOKENS:
            known.add(str(plain.get("model")))
        return exchange

    async def _whole(self, exchange: Exchange, capture: Capture, reply: Reply) -> None:
        body, is_answer = exchange.first, exchange.status < 400
        capture.finish(capture.whole(body) if is_answer else capture.refused(exchange.status, body))
        shown = capture.shown(body) if is_answer else body  # while the store writes
        await self._services.writer.durable()
        await reply.whole(exchange.status, passed_on(exchange.headers), shown)

    async def _stream(self, exchange: Exchange, capture: Capture, reply: Reply) -> None:
        await reply.start(exchange.status, passed_on(exchange.headers))
        async for data in exchange.chunks():
            seen = capture.take(data)
            if seen:
                await reply.write(seen)
        capture.finish(capture.end_of_stream())
        await self._services.writer.durable()
        await reply.write(capture.held, more=False)


class ModelList:
    """``GET /v1/models``: of the upstreams, or of a rollout's policy."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def handle(self, request: Request, grant: Grant, reply: Reply) -> None:
        services = self._services
        rollout_id = await services.access.rollout_of(request, grant, LIST)
        recorder = await services.recorders.of(rollout_id) if rollout_id is not None else None
        upstreams = services.routing.upstreams_for_models(recorder)
        outgoing = Outgoing(upstreams, "/models", None, _headers(request, services.id))
        await pass_back(await services.forwarder.open(outgoing), reply)


async def pass_back(exchange: Exchange, reply: Reply) -> None:
    """An answer as it comes."""
    try:
        if not exchange.is_stream:
            await reply.whole(exchange.status, passed_on(exchange.headers), exchange.first)
            return
        await reply.start(exchange.status, passed_on(exchange.headers))
        async for data in exchange.chunks():
            await reply.write(data)
        await reply.write(b"", more=False)
    finally:
        exchange.close()


async def _while_client_stays(request: Request, answering: Coroutine[Any, Any, None]) -> None:
    """Answers a client, and stops where it leaves: raises `ClientDisconnect` then."""
    work = asyncio.current_task()
    assert work is not None
    leaving: asyncio.Task[None] | None = None
    left = answered = False

    def watch() -> None:
        nonlocal leaving
        leaving = asyncio.create_task(client_leaves(request.receive))
        leaving.add_done_callback(stop)

    def stop(_: asyncio.Task[None]) -> None:
        nonlocal left
        if not answered:  # then the request is over, which looks the same
            left = True
            work.cancel()

    beginning = asyncio.get_running_loop().call_later(UNWATCHED_SECONDS, watch)
    try:
        await answering
    except asyncio.CancelledError:
        if left and work.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        answered = True
        beginning.cancel()
        if leaving is not None:
            leaving.cancel()


def _headers(request: Request, gateway: str) -> dict[str, str]:
    """Raises `RequestError` where the request has come through this gateway before."""
    if request.headers.get(VIA_HEADER) == gateway:
        raise RequestError(508, "this call has come back to the server that sent it on: an upstream is its own address")
    passed = {name: value for name in PASSED_ON if (value := request.headers.get(name)) is not None}
    return {**passed, "accept-encoding": "identity", VIA_HEADER: gateway}


def _agent(request: Request) -> str | None:
    agent = request.headers.get(AGENT_HEADER)
    if agent is not None and len(agent) > MAX_AGENT:
        raise RequestError(400, f"the header {AGENT_HEADER} is longer than {MAX_AGENT} characters")
    return agent or None


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (OverflowError, ValueError, RecursionError) as error:
        raise RequestError(400, f"the body cannot be sent on: {error}") from None


def _failure_type(error: Exception) -> str:
    if isinstance(error, UnreachableError):
        return "timeout" if error.status == 504 else "engine_unavailable"
    return "redirect_failed" if isinstance(error, AdapterError | RequestError) else "engine_unavailable"
