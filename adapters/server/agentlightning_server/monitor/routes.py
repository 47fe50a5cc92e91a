"""``GET /metrics`` and ``GET /v1/failures``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlightning.failures import By, failure_report
from agentlightning.formatting import parse_since
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server.errors import RequestError
from agentlightning_server.keys import Grant
from agentlightning_server.monitor.metrics import CONTENT_TYPE
from agentlightning_server.monitor.monitor import Monitor
from agentlightning_server.sessions import Sessions

JSON = "application/json"

Handler = Callable[[Request, Grant], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class FailuresQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The parameters of ``GET /v1/failures``, as the options of ``agl failures``."""

    run: str | None = None
    by: By = "type"
    since: str | None = None
    over_time: bool = False


class MonitorRoutes:
    """Answers for the metrics of a server, and the failures in its store."""

    def __init__(self, store: SQLiteStore, sessions: Sessions, monitor: Monitor) -> None:
        self._store = store
        self._sessions = sessions
        self._monitor = monitor

    def routes(self, granted: Callable[[Handler], Endpoint]) -> list[Route]:
        """The routes, each of which asks ``granted`` who may."""
        return [
            Route("/metrics", granted(self._show_metrics), methods=["GET"]),
            Route("/v1/failures", granted(self._show_failures), methods=["GET"]),
        ]

    async def _show_metrics(self, request: Request, grant: Grant) -> Response:
        if grant.run is not None:
            raise RequestError(
                403, f"this key is for run {grant.run} alone, and metrics are of all runs: GET /v1/failures is of one"
            )
        unfinished = await self._store.unfinished()
        return Response(
            self._monitor.render(unfinished=unfinished, sessions=len(self._sessions)), media_type=CONTENT_TYPE
        )

    async def _show_failures(self, request: Request, grant: Grant) -> Response:
        query = _query(request)
        run = query.run if query.run is not None else grant.run
        if run is None:
            raise RequestError(400, "which run: /v1/failures?run=ID")
        if grant.run is not None and run != grant.run:
            raise RequestError(403, f"this key is for run {grant.run} alone, and failures asks for run {run}")
        if await self._store.run(run) is None:
            raise RequestError(404, f"there is no run {run} in this store")
        report = await failure_report(
            self._store, run, by=query.by, since=_since(query.since), over_time=query.over_time
        )
        return Response(msgspec.json.encode(report), media_type=JSON)


def _query(request: Request) -> FailuresQuery:
    try:
        return msgspec.convert(dict(request.query_params), FailuresQuery, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(400, f"the parameters of /v1/failures: {error}") from None


def _since(text: str | None) -> float | None:
    try:
        return None if text is None else parse_since(text)
    except ValueError as error:
        raise RequestError(400, f"since: {error}") from None
