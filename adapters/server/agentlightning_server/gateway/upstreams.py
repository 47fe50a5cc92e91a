"""The servers that answer model calls, and which of them gets the next one."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from agentlightning.redaction import remember
from agentlightning_server.errors import ServerError
from agentlightning_server.wire import LOOPBACK

MAX_STICKY = 100_000
"""Rollouts whose replica is kept in mind."""
FIRST_PROBE_SECONDS = 0.25
LONGEST_PROBE_SECONDS = 10.0

Probe = Callable[["Upstream"], Awaitable[bool]]
"""Whether an upstream is well."""


class Upstream:
    """An OpenAI-compatible server at a base URL, up to and with ``/v1``; ``key`` is the key that it wants."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self.key = key
        parts = urlsplit(self.url)
        self.name = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        """Its host and port, for messages: an address may hold a password."""
        self.is_here = parts.hostname in LOOPBACK
        self.in_flight = 0
        self.calls = 0
        self.failures = 0
        """Times that it was taken out."""
        self.is_in = True


def upstreams_at(urls: Sequence[str], key_variable: str | None) -> list[Upstream]:
    """The upstreams at base URLs, which want the key in a variable of the environment, where that is named.

    Raises `ServerError` where a URL is none, or the variable is not set.
    """
    key = os.environ.get(key_variable) if key_variable is not None else None
    if key_variable is not None and not key:
        raise ServerError(f"--upstream-key-env {key_variable}: the environment has no such variable, or an empty one")
    if key_variable is not None and not urls:
        raise ServerError("--upstream-key-env is for an upstream, and there is none: name it with --upstream")
    remember(key)
    return [Upstream(_checked(url), key) for url in dict.fromkeys(url.rstrip("/") for url in urls)]


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise ServerError(
            f"--upstream {url.rpartition('@')[2]!r}: expected a base URL such as http://127.0.0.1:8000/v1; a key is "
            "given by --upstream-key-env"
        )
    return url


class Upstreams:
    """Replicas of one model. A rollout's calls go to the same one, whose prefix cache holds its beginning; else the
    least loaded gets the call. One that failed is out until ``probe`` says that it is well."""

    def __init__(self, upstreams: Sequence[Upstream], probe: Probe) -> None:
        self.all = list(upstreams)
        self.retries = 0
        """Requests that were sent again, to whichever replica."""
        self.without_tokens: set[str] = set()
        """Models whose tokens it does not give: it refused to be asked."""
        self._probe = probe
        self._replica_of: OrderedDict[str, Upstream] = OrderedDict()
        self._probing: dict[Upstream, asyncio.Task[None]] = {}

    def choose(self, rollout_id: str | None, *, avoid: Upstream | None = None) -> Upstream:
        """The replica for the next call of a rollout, or of nobody's. Where all are out, one of them: it may be well
        by now. ``avoid`` has just failed, and is taken only where there is no other."""
        there = [upstream for upstream in self.all if upstream.is_in] or self.all
        there = [upstream for upstream in there if upstream is not avoid] or there
        chosen = self._replica_of.get(rollout_id) if rollout_id is not None else None
        if chosen is None or chosen not in there:
            chosen = min(there, key=lambda upstream: (upstream.in_flight, upstream.calls))
        if rollout_id is not None and len(self.all) > 1:
            self._replica_of[rollout_id] = chosen
            self._replica_of.move_to_end(rollout_id)
            if len(self._replica_of) > MAX_STICKY:
                self._replica_of.popitem(last=False)
        return chosen

    def take_out(self, upstream: Upstream) -> None:
        """It has failed: the others, where there are any, get its calls until it is well again."""
        if not upstream.is_in or len(self.all) == 1:
            return
        upstream.is_in = False
        upstream.failures += 1
        self._probing[upstream] = asyncio.create_task(self._let_in_again(upstream))

    async def close(self) -> None:
        """Looks after nobody any more."""
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    async def _let_in_again(self, upstream: Upstream) -> None:
        pause = FIRST_PROBE_SECONDS
        while not upstream.is_in:
            await asyncio.sleep(pause)
            upstream.is_in = await self._probe(upstream)
            pause = min(2 * pause, LONGEST_PROBE_SECONDS)
        del self._probing[upstream]
