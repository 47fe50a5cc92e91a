"""The routes of trainings. They run code here, so that they want the admin key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlightning_server.bodies import Bodies
from agentlightning_server.errors import RequestError
from agentlightning_server.keys import EVERYTHING, Grant
from agentlightning_server.training.manager import TrainingManager
from agentlightning_server.training.records import Submission, TrainingAnswer, Trainings
from agentlightning_server.wire import WAIT_SECONDS

JSON = "application/json"
MAX_OFFSET = 2**53
MAX_NOTHING_BYTES = 1024

Handler = Callable[[Request, Grant], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


class TrainingRoutes:
    """Answers for ``trainings``; with 409 where they are None, and the server trains nothing."""

    def __init__(self, trainings: TrainingManager | None, bodies: Bodies) -> None:
        self._trainings = trainings
        self._bodies = bodies

    def routes(self, granted: Callable[[Handler], Endpoint]) -> list[Route]:
        """The routes, each of which asks ``granted`` who may."""
        return [
            Route("/v1/training", granted(self._submit), methods=["POST"]),
            Route("/v1/training", granted(self._list), methods=["GET"]),
            Route("/v1/training/{id}", granted(self._show), methods=["GET"]),
            Route("/v1/training/{id}", granted(self._delete), methods=["DELETE"]),
            Route("/v1/training/{id}/stop", granted(self._stop), methods=["POST"]),
            Route("/v1/training/{id}/resume", granted(self._resume), methods=["POST"]),
        ]

    async def _submit(self, request: Request, grant: Grant) -> Response:
        _expect_json(request)
        async with self._bodies.of(request) as body:
            trainings = self._granted(grant)
            try:
                submission = await asyncio.to_thread(msgspec.json.decode, body, type=Submission)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise RequestError(400, f"the body is no training: {error}") from None
            return _answer(await trainings.submit(submission), 201)

    async def _list(self, request: Request, grant: Grant) -> Response:
        return _answer(Trainings(self._granted(grant).all()))

    async def _show(self, request: Request, grant: Grant) -> Response:
        trainings = self._granted(grant)
        after, wait = request.query_params.get("after"), request.query_params.get("wait", "0")
        offset = None if after is None else int(_number("after", after, MAX_OFFSET))
        seconds = _number("wait", wait, WAIT_SECONDS)
        return _answer(TrainingAnswer(*await trainings.log(request.path_params["id"], offset, seconds)))

    async def _delete(self, request: Request, grant: Grant) -> Response:
        return _answer(await self._granted(grant).delete(request.path_params["id"]))

    async def _stop(self, request: Request, grant: Grant) -> Response:
        await self._read_nothing(request)
        return _answer(self._granted(grant).stop(request.path_params["id"]))

    async def _resume(self, request: Request, grant: Grant) -> Response:
        await self._read_nothing(request)
        return _answer(self._granted(grant).resume(request.path_params["id"]))

    async def _read_nothing(self, request: Request) -> None:
        """A body that says nothing, and must be sent as JSON all the same: pages of other sites may not send that."""
        _expect_json(request)
        async with self._bodies.of(request, MAX_NOTHING_BYTES):
            pass

    def _granted(self, grant: Grant) -> TrainingManager:
        if grant != EVERYTHING:
            raise RequestError(
                403, "trainings run code on the server: they want its own key, not one made by server-key"
            )
        if self._trainings is None:
            raise RequestError(409, "this server trains nothing: start it with agl server --train-in DIR")
        return self._trainings


def _expect_json(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise RequestError(415, f"expected a body of the content type {JSON}")


def _number(name: str, text: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise RequestError(400, f"{name}: expected a number from 0 to {most:g}")
    return number


def _answer(value: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)
