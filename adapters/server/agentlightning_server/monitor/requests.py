"""How long requests take, by route and status."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentlightning_server.methods import METHODS
from agentlightning_server.monitor.metrics import Metrics

NO_ROUTE = "none"
BROKEN_OFF = 499
"""Counted for a request to which no answer began: its client left."""
KNOWN_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})


class MeasuredRequests:
    """Middleware: counts each request of ``app`` when the last of its answer was sent."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), BROKEN_OFF

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
            self._metrics.count_request(method, route_of(scope), status, time.perf_counter() - begun)


def route_of(scope: Scope) -> str:
    """The path of the route as it is declared, of the store's methods with the method's name."""
    path = getattr(scope.get("route"), "path", NO_ROUTE)
    method = scope.get("path_params", {}).get("method")
    return str(path.replace("{method}", method) if method in METHODS else path)
