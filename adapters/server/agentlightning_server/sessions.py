"""Sessions: what each client of the server holds, for as long as the client is heard from.

A run is owned by one live process. Here that process is a client, on whichever machine: its session is the owner, by
the client's own id, so that it is the same owner still after the server was killed and started again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from agentlightning.store.leases import OWNED_SECONDS
from agentlightning.store.owner import Owner
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server.errors import RequestError

LONGEST_INTERVAL = OWNED_SECONDS / 4
"""Seconds: a run that is opened is held for `OWNED_SECONDS` by itself."""
MAX_ANSWERS = 4096
"""Writes of one session that are kept in mind until the client has said that it knows what came of them."""
_TOKEN = re.compile(r"[0-9a-f]{32}")
_CLIENT = re.compile(r"([\w.:-]{1,200}):(\d{1,10})")


class Session:
    """One client: its view of the store, and what was lately answered."""

    def __init__(self, store: SQLiteStore, now: float) -> None:
        self.store = store
        self.heard_at = now
        self.renewed_at = now
        self.active = 0
        """Requests that are being answered."""
        self.writes = False
        """Whether it may hold anything."""
        self.leasing = asyncio.Lock()
        self.leased: set[str] = set()
        """Ids of the rollouts that it has leased from this server, and not finished."""
        self._answers: dict[int, asyncio.Task[Any]] = {}
        self._answered = 0

    async def once(self, number: int, answered: int, work: Callable[[], Awaitable[Any]]) -> Any:
        """Does a write of this number, or gives what came of it where it was done, or is being done.

        Requests below ``answered`` are forgotten; one
        that comes late all the same is refused with 409.
        """
        self._forget(answered)
        if number < self._answered:
            raise RequestError(409, f"request {number} was answered before: it is not done again")
        if number not in self._answers:
            if len(self._answers) >= MAX_ANSWERS:
                raise RequestError(503, f"more than {MAX_ANSWERS} writes of this session wait: send this one later")
            # A task of its own: a client that leaves in the middle, and asks again, finds it done.
            self._answers[number] = asyncio.ensure_future(work())
        return await asyncio.shield(self._answers[number])

    def _forget(self, answered: int) -> None:
        if answered <= self._answered:
            return
        self._answered = answered
        for number in [number for number in self._answers if number < answered]:
            del self._answers[number]


class Sessions:
    """The sessions of a server on ``store``.

    One that is silent for ``seconds`` is ended: what it held is free, as after a crash. ``limit`` may be open at once.
    """

    def __init__(
        self, store: SQLiteStore, *, seconds: float, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._limit = limit
        self._clock = clock
        self.seconds = seconds
        self.interval = min(seconds / 4, LONGEST_INTERVAL)
        """How often they are looked after, and want to be heard from."""
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def heard(self, token: str, client: str) -> Session:
        """The session of a client, which is heard from; a new one where it is not open.

        Raises `RequestError`: 400 where the token is none, 503 where too many are open.
        """
        if not _TOKEN.fullmatch(token):
            raise RequestError(400, "a session is 32 hexadecimal digits that its client has drawn")
        session = self._sessions.get(token)
        if session is None:
            if len(self._sessions) >= self._limit:
                raise RequestError(
                    503,
                    f"{self._limit} sessions are open, and the server takes no more: close some stores, or start it "
                    "with a larger --max-sessions",
                )
            session = Session(self._store.owned_by(_owner(token, client)), self._clock())
            self._sessions[token] = session
        session.heard_at = self._clock()
        return session

    async def end(self, token: str, client: str) -> None:
        """The client has left: what it holds is given up, also what it held with an earlier server. Raises as `heard`
        does."""
        session = self.heard(token, client)
        del self._sessions[token]
        await session.store.close()

    async def look_after(self) -> None:
        """Ends what is silent; of the others, renews what they hold in the store. Raises `StoreError`."""
        now = self._clock()
        for token, session in list(self._sessions.items()):
            if session.active:
                session.heard_at = now
            if now - session.heard_at > self.seconds:
                del self._sessions[token]
                await session.store.close()
            elif session.writes and now - session.renewed_at >= self.interval:
                await session.store.heartbeat("", seconds=self.seconds)
                session.renewed_at = now


def _owner(token: str, client: str) -> Owner:
    """The same for the same session, whichever server it talks to. Whether its process lives cannot be seen from the
    store's machine: it is believed to for as long as it was renewed."""
    known = _CLIENT.fullmatch(client)
    host, pid = (known[1], int(known[2])) if known else ("an unknown machine", 0)
    return Owner(token=token, host=host, machine="a session of a Lightning Server", pid=pid, started=None)
