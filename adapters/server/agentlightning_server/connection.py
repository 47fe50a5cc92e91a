"""Requests to a Lightning Server, from any thread and any event loop: they are made on one of their own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import httpx
import msgspec
import tenacity

from agentlightning.errors import StoreBusyError, StoreError, StoreRefusedError
from agentlightning_server import asking, wire
from agentlightning_server.methods import Method

logger = logging.getLogger(__name__)

T = TypeVar("T")
Body = bytes | Callable[[], bytes]

LEAVING_SECONDS = 5.0


class Connection:
    """A session with the server at ``url``. It is kept alive from here, and a request without an answer is sent again
    for ``patience`` seconds, with pauses that grow. ``session`` is its token, where somebody else must know it.

    Raises `StoreError` where there is no server, or it refuses the key.
    """

    def __init__(self, url: str, *, key: str | None, patience: float, session: str | None = None) -> None:
        parts = asking.address(url)
        if parts is None:
            raise StoreError(
                f"store {url.partition('@')[2] or url!r}: expected http://HOST:PORT or https://HOST; a key is given in "
                f"{wire.KEY_VARIABLE}"
            )
        self.url = url.rstrip("/")
        self._patience = patience
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._numbers = itertools.count(1)
        self._outstanding: set[int] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._http = httpx.AsyncClient(
            **asking.client_options(parts, key),
            timeout=httpx.Timeout(asking.ANSWER_SECONDS, connect=asking.CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._http.headers[wire.SESSION] = session or secrets.token_hex(16)
        self._http.headers[wire.CLIENT] = f"{socket.gethostname()}:{os.getpid()}"
        threading.Thread(target=self._run, name="agentlightning-remote-store", daemon=True).start()
        try:
            answer = self.start(self._hello()).result()
        except BaseException:
            self.start(self._http.aclose()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise
        self._alive = self.start(self._keep_alive(answer.keep_alive_seconds))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a coroutine on the loop of the requests."""
        return asyncio.run_coroutine_threadsafe(self._guarded(coroutine), self._loop)

    async def call(self, method: Method, body: Body) -> bytes:
        """Has the server call a method of its store; on the loop of the requests. A body that is a function is made
        anew each time that the server is asked. Raises `StoreError`."""
        headers = {"content-type": wire.CONTENT_TYPE}
        if method.access == "read":
            return await self._ask("POST", f"/v1/store/{method.name}", body, headers, self._patience)
        number = next(self._numbers)
        self._outstanding.add(number)
        headers |= {wire.REQUEST: str(number), wire.ANSWERED: str(min(self._outstanding))}
        try:
            return await self._ask("POST", f"/v1/store/{method.name}", body, headers, self._patience)
        finally:
            self._outstanding.discard(number)

    async def close(self) -> None:
        """Says that the session is over: what it holds is free. Never raises: it would be free by itself, later."""
        if self._closing:
            return
        with suppress(StoreError):
            await asyncio.wrap_future(self.start(self._ask("DELETE", "/v1/session", b"", {}, LEAVING_SECONDS)))
        self._closing = True
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    async def _guarded(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._closing:
                raise closed(self.url) from None
            raise
        finally:
            self._tasks.discard(task)

    async def _hello(self) -> wire.SessionAnswer:
        patience = min(self._patience, asking.FIRST_PATIENCE_SECONDS)
        answer = await self._ask("POST", "/v1/session", b"", {}, patience)
        try:
            return msgspec.json.decode(answer, type=wire.SessionAnswer)
        except msgspec.MsgspecError:
            raise StoreError(f"{self.url} answers, and is no Lightning Server: check the address") from None

    async def _keep_alive(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._ask("POST", "/v1/session", b"", {}, seconds)
            except StoreError as error:
                logger.warning("%s", error)

    async def _ask(self, verb: str, path: str, body: Body, headers: dict[str, str], patience: float) -> bytes:
        try:
            async for attempt in tenacity.AsyncRetrying(**asking.again(patience)):
                with attempt:
                    repeated = {wire.AGAIN: "1"} if attempt.retry_state.attempt_number > 1 else {}
                    content = body() if callable(body) else body
                    return await self._ask_once(verb, path, content, {**headers, **repeated})
        except asking.NoAnswerError as error:
            raise StoreError(
                f"the Lightning Server at {self.url} has not answered for {patience:g} s ({error}): see whether it "
                "runs, and check the address; what it has acknowledged is in its store"
            ) from None
        raise AssertionError("tenacity ends by a return or by an error")

    async def _ask_once(self, verb: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            response = await self._http.request(verb, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise asking.no_answer(error) from None
        try:
            return asking.content_of(response)
        except asking.RefusedError as error:
            raise _as_store_error(error) from None


def _as_store_error(error: asking.RefusedError) -> StoreError:
    """The store's own error; what was malformed or too large will be so again."""
    kinds = {kind.__name__: kind for kind in (StoreBusyError, StoreRefusedError)}
    usual = StoreRefusedError if error.status in (400, 413) else StoreError
    return kinds.get(error.problem.error, usual)(str(error))


def closed(url: str) -> StoreError:
    """The store was closed by whoever opened it."""
    return StoreError(f"the store {url} is closed; open it again")
