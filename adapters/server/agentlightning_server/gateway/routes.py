"""The gateway: the OpenAI API in front of upstreams, at ``/v1`` and for one rollout at ``/rollouts/{id}/v1``; for one
attempt of it alone at ``/rollouts/{id}/attempts/{number}/v1``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, get_args

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from agentlightning.store.sqlite import SQLiteStore
from agentlightning_openai.request import Operation, path_of
from agentlightning_server.errors import RequestError
from agentlightning_server.gateway.access import Access, Endpoint, Handle, json_object
from agentlightning_server.gateway.forward import Forwarder
from agentlightning_server.gateway.gate import Gate
from agentlightning_server.gateway.model_calls import ModelCalls, ModelList, Services, new_gateway_id
from agentlightning_server.gateway.recorders import Recorders, SpanWriter
from agentlightning_server.gateway.reply import Reply
from agentlightning_server.gateway.routing import Routing
from agentlightning_server.gateway.upstreams import Upstream, Upstreams
from agentlightning_server.keys import EVERYTHING, Grant

OPERATIONS: tuple[Operation, ...] = tuple(it for it in get_args(Operation) if it != "embeddings")
PREFIXES = ("/v1", "/rollouts/{rollout}/v1", "/rollouts/{rollout}/attempts/{attempt:int}/v1")
MAX_CONTROL_BYTES = 4096


class Pause(msgspec.Struct, forbid_unknown_fields=True):
    """How long to wait for what is under way, and how long the gateway stays paused at most, in seconds."""

    timeout: Annotated[float, msgspec.Meta(ge=0, le=600)] = 60.0
    lapses_after: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 600.0


class Gateway:
    """Passes model calls on to ``upstreams``, and records those of rollouts in a store.

    ``access`` says who may call. Its routes answer between `start` and `close`, both within the server's event loop.
    """

    def __init__(self, store: SQLiteStore, upstreams: Sequence[Upstream], access: Access) -> None:
        self._gate = Gate()
        self._writer = SpanWriter(store)
        self._forwarder = Forwarder()
        self._upstreams = Upstreams(upstreams, self._forwarder.is_well)
        self._services = Services(
            access=access,
            gate=self._gate,
            routing=Routing(self._upstreams, self._forwarder),
            forwarder=self._forwarder,
            recorders=Recorders(store, self._writer),
            writer=self._writer,
            id=new_gateway_id(),
        )
        self.calls = [
            self._route(f"{prefix}{path_of(operation)}", "POST", ModelCalls(self._services, operation).handle)
            for prefix in PREFIXES
            for operation in OPERATIONS
        ]
        """The routes of model calls."""

    def start(self) -> None:
        """Begins."""
        self._forwarder.start()

    async def close(self) -> None:
        """Lets go of upstreams, once every span is with the store."""
        self._gate.resume()
        await self._writer.idle()
        await self._upstreams.close()
        await self._forwarder.close()

    def routes(self) -> list[BaseRoute]:
        """Its routes, each an ASGI application."""
        services = self._services
        return [
            *self.calls,
            *(self._route(f"{prefix}/models", "GET", ModelList(services).handle) for prefix in PREFIXES),
            self._route("/v1/gateway", "GET", self._status),
            self._route("/v1/gateway/pause", "POST", self._pause),
            self._route("/v1/gateway/resume", "POST", self._resume),
        ]

    def _route(self, path: str, method: str, handle: Handle) -> Route:
        return Route(path, Endpoint(self._services.access, handle), methods=[method])

    async def _status(self, request: Request, grant: Grant, reply: Reply) -> None:
        _for_admin(grant)
        await reply.json(self._described())

    async def _pause(self, request: Request, grant: Grant, reply: Reply) -> None:
        _for_admin(grant)
        async with self._services.access.bodies.of(request, MAX_CONTROL_BYTES) as body:
            options = json_object(request, body or b"{}")
        try:
            pause = msgspec.convert(options, Pause)
        except msgspec.ValidationError as error:
            raise RequestError(400, f"the body is no pause: {error}") from None
        await self._gate.pause(timeout=pause.timeout, lapses_after=pause.lapses_after)
        if self._gate.in_flight:
            raise RequestError(
                409,
                f"{self._gate.in_flight} calls are still under way after {pause.timeout:g} s; no new one begins: pause "
                "again to wait for longer, or resume",
            )
        await reply.json(self._described())

    async def _resume(self, request: Request, grant: Grant, reply: Reply) -> None:
        _for_admin(grant)
        async with self._services.access.bodies.of(request, MAX_CONTROL_BYTES) as body:
            json_object(request, body or b"{}")
        self._gate.resume()
        await reply.json(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "paused": self._gate.paused,
            "in_flight": self._gate.in_flight,
            "retries": self._upstreams.retries,
            "upstreams": [
                {
                    "url": upstream.url,
                    "is_in": upstream.is_in,
                    "in_flight": upstream.in_flight,
                    "calls": upstream.calls,
                    "failures": upstream.failures,
                }
                for upstream in self._upstreams.all
            ],
        }


def _for_admin(grant: Grant) -> None:
    if grant != EVERYTHING:
        raise RequestError(403, "this is for whoever has the server's own key")
