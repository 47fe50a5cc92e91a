"""Requests to upstreams: sent, sent again where that may help, and answered whole or as a stream."""

from __future__ import annotations

import asyncio
import io
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp

from agentlightning_server import wire
from agentlightning_server.errors import RequestError
from agentlightning_server.gateway.upstreams import Upstream, Upstreams

AGAIN_STATUSES = frozenset((408, 409, 429))
"""Beside those from 500 on."""
NEVER_AGAIN_STATUSES = frozenset((501, 505, 508))
"""Of those from 500 on: what will not be otherwise a second later."""
UNWELL_STATUSES = frozenset((502, 503, 504))
"""Those of a replica that answers nobody; 500 may be the fault of one request."""
MAX_RETRIES = 4
PATIENCE_SECONDS = 60.0
"""How long a call may be sent again after it was first sent."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 8.0
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 600.0
"""How long an upstream may say nothing."""
CALL_SECONDS = 3600.0
"""How long a stream may take."""
PROBE_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn, and vLLM with it, closes one."""
LARGE_BYTES = 1024**2
MAX_ANSWER_BYTES = wire.MAX_BODY_BYTES


class UnreachableError(RequestError):
    """No upstream answered."""


@dataclass(slots=True)
class Outgoing:
    """A request for one of ``upstreams``. ``content`` None is one without a body (GET)."""

    upstreams: Upstreams
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    rollout_id: str | None = None
    key: str | None = None
    """The key to send in the place of the upstream's own."""
    retries: int = 0
    """How often it was sent again."""


class Exchange:
    """A request that is being answered; `close` it. ``first`` is the whole body, or the first piece of a stream."""

    def __init__(self, upstream: Upstream, response: aiohttp.ClientResponse, first: bytes, *, is_stream: bool) -> None:
        self.upstream = upstream
        self.status = response.status
        self.headers = response.headers
        self.first = first
        self.is_stream = is_stream
        self._response = response
        self._began = self._heard = time.monotonic()
        self._too_long: str | None = None
        self._next_look: asyncio.TimerHandle | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """A stream's pieces as they come. Raises `UnreachableError` where it breaks off, or nothing comes for too
        long."""
        yield self.first
        read = self._response.content.readany
        self._look()
        try:
            while data := await read():
                self._heard = math.inf  # while the client reads it is not the upstream that is silent
                yield data
                self._heard = time.monotonic()
        except (aiohttp.ClientError, TimeoutError) as error:
            if self._too_long is not None:
                raise UnreachableError(504, f"upstream {self.upstream.name} {self._too_long}") from None
            raise UnreachableError(502, f"upstream {self.upstream.name} broke off its stream: {_said(error)}") from None

    def _look(self) -> None:
        """Ends a stream in which nothing comes, or that never ends. It looks when something last came: to set a timer
        for each piece takes as long as to read one."""
        now = time.monotonic()
        if now - self._heard >= SILENCE_SECONDS:
            self._too_long = f"said nothing for {SILENCE_SECONDS:g} s"
        elif now - self._began >= CALL_SECONDS:
            self._too_long = f"streamed for {CALL_SECONDS:g} s without an end"
        if self._too_long is not None:
            self._response.close()  # which ends the read that waits
            return
        left = min(self._heard + SILENCE_SECONDS - now, self._began + CALL_SECONDS - now, SILENCE_SECONDS)
        self._next_look = asyncio.get_running_loop().call_later(left, self._look)

    def close(self) -> None:
        """Lets the connection go: to the next request, or, where the answer has not been read, for good, which ends
        the upstream's work."""
        if self._next_look is not None:
            self._next_look.cancel()
        self._response.release()
        self.upstream.in_flight -= 1

    @property
    def retry_after(self) -> float:
        """Seconds that the upstream asks to wait, 0 where it does not say."""
        with suppress(KeyError, ValueError):
            return max(0.0, float(self.headers["retry-after"]))
        return 0.0


class Forwarder:
    """Sends requests on, from `start` until it is closed."""

    def __init__(self) -> None:
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def start(self) -> None:
        """Begins, within a running event loop."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        # No cookie of an upstream is kept. Proxies of the environment are for hosts that are not this machine.
        self._sessions = {
            outside: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=limits,
                trust_env=outside,
            )
            for outside in (False, True)
        }

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def open(self, outgoing: Outgoing) -> Exchange:
        """The answer to a request, whole or begun, which the caller closes.

        It is sent again, with pauses that grow and differ, to another replica where there is one, when the upstream
        cannot be reached, is busy or has failed. Where that does not help, the last answer is given, whatever its
        status. Raises `UnreachableError` (502, or 504) where there was none.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        avoid: Upstream | None = None
        while True:
            upstream = outgoing.upstreams.choose(outgoing.rollout_id, avoid=avoid)
            exchange: Exchange | None = None
            lost: UnreachableError | None = None
            try:
                exchange = await self._ask(upstream, outgoing)
                if not _may_be_otherwise(exchange.status):
                    return exchange
            except UnreachableError as error:
                lost = error
            if lost is not None or (exchange is not None and exchange.status in UNWELL_STATUSES):
                outgoing.upstreams.take_out(upstream)
            asked = exchange.retry_after if exchange is not None else 0.0
            pause = max(asked, _pause(outgoing.retries))
            if outgoing.retries == MAX_RETRIES or time.monotonic() + pause > until or _is_late(lost):
                if exchange is None:
                    raise lost or UnreachableError(502, "no upstream answered")
                return exchange
            if exchange is not None:
                exchange.close()
            outgoing.retries += 1
            outgoing.upstreams.retries += 1
            avoid = upstream
            await asyncio.sleep(pause)

    async def is_well(self, upstream: Upstream) -> bool:
        """Whether an upstream says so: by ``/health``, and where it has none by its list of models."""
        root = upstream.url.removesuffix("/v1")
        limits = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        headers = _authorization(upstream.key)
        try:
            session = self._session(upstream)
            async with session.get(f"{root}/health", headers=headers, timeout=limits, allow_redirects=False) as health:
                if health.status not in (404, 405):
                    return health.status < 400
            async with session.get(f"{upstream.url}/models", headers=headers, timeout=limits) as models:
                return models.status < 500
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _session(self, upstream: Upstream) -> aiohttp.ClientSession:
        return self._sessions[not upstream.is_here]

    async def _ask(self, upstream: Upstream, outgoing: Outgoing) -> Exchange:
        upstream.in_flight += 1
        upstream.calls += 1
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout(SILENCE_SECONDS) as silence:
                response = await self._session(upstream).request(
                    "GET" if outgoing.content is None else "POST",
                    upstream.url + outgoing.path,
                    data=_in_pieces(outgoing.content),
                    headers={**outgoing.headers, **_authorization(outgoing.key or upstream.key)},
                    allow_redirects=False,
                )
                is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
                read = response.content.readany
                first = await read() if is_stream else await _whole(read, silence, upstream)
            return Exchange(upstream, response, first, is_stream=is_stream)
        except BaseException as error:
            upstream.in_flight -= 1
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ClientError | TimeoutError):
                raise _unreachable(upstream, error) from None
            raise


async def _whole(read: Callable[[], Awaitable[bytes]], silence: asyncio.Timeout, upstream: Upstream) -> bytes:
    parts, size = [], 0
    while data := await read():
        parts.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise RequestError(502, f"{upstream.name} answered more than {MAX_ANSWER_BYTES // 1024**2} MiB")
        silence.reschedule(asyncio.get_running_loop().time() + SILENCE_SECONDS)
    return b"".join(parts)


def _in_pieces(content: bytes | None) -> bytes | io.BytesIO | None:
    """A large body is written a piece at a time, so that others are served meanwhile."""
    return io.BytesIO(content) if content is not None and len(content) > LARGE_BYTES else content


def _authorization(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _pause(retries: int) -> float:
    """Between half and all of a time that doubles with each retry."""
    return random.uniform(0.5, 1.0) * min(FIRST_PAUSE_SECONDS * 2.0**retries, LONGEST_PAUSE_SECONDS)


def _may_be_otherwise(status: int) -> bool:
    return status in AGAIN_STATUSES or (status >= 500 and status not in NEVER_AGAIN_STATUSES)


def _unreachable(upstream: Upstream, error: Exception) -> UnreachableError:
    late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
    return UnreachableError(504 if late else 502, f"the upstream {upstream.name} did not answer: {_said(error)}")


def _is_late(lost: UnreachableError | None) -> bool:
    """Whether an upstream took a request and was silent for as long as it may: it is not asked that again."""
    return lost is not None and lost.status == 504


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}{': ' if str(error) else ''}{error}"
