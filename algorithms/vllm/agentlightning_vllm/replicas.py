"""Which replica answers a request, under which version, and when none may.

Requests come from the gateway's event loop, new weights from the trainer's: all state is behind one lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.sampler import SamplerUnavailableError
from agentlightning_gateway.endpoint import Endpoint
from agentlightning_vllm.control import ReplicaControl
from agentlightning_vllm.process import VllmProcess

WAIT_SECONDS = 600.0
"""How long a request waits for new weights to be in place, or for a replica that serves them; and new weights for the
requests that run."""
MORE_BUSY = 8
"""How many requests more than the least busy replica the one that knows a conversation may have before it is left."""
PREFIX_TOKENS = 256
"""A prompt of no known rollout goes where the last one went that began with the same tokens, so many of them."""
REMEMBERED = 65536
"""Conversations whose replica is known; the one longest unheard of goes first."""


@dataclass(eq=False)
class Replica:
    """One vLLM server. ``process`` is ours, where it was started here. ``out`` says why it gets no requests, while that
    is so; ``returns``, whether it was lost, and may be back with nothing done: one that refuses what it is given is
    not. ``adapters`` are the names of those that were loaded into it."""

    url: str
    endpoint: Endpoint
    control: ReplicaControl
    process: VllmProcess | None = None
    out: str | None = "it has not been given any weights yet"
    returns: bool = True
    in_flight: Counter[str] = field(default_factory=Counter)
    adapters: set[str] = field(default_factory=set)
    before: np.ndarray | None = None
    """What it last gave for the probe, since it was started."""
    rounding: float | None = None
    """How far from the trainer it was the first time, as the root of the mean square."""


@dataclass(frozen=True)
class Served:
    """What requests are answered with: the version of the weights, and the model's name for it at the replicas."""

    version: int
    model: str


@dataclass(frozen=True)
class Lease:
    """A request's place at a replica."""

    replica: Replica
    served: Served


class ReplicaSet:
    """The replicas of a policy. ``on_failure`` is called, from any thread, with each that has been put out."""

    def __init__(self, replicas: Sequence[Replica], on_failure: Callable[[Replica], None]) -> None:
        self.replicas = list(replicas)
        self._on_failure = on_failure
        self._served: Served | None = None
        self._paused = False
        self._closed = False
        self._lock = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._homes: OrderedDict[bytes, Replica] = OrderedDict()

    @property
    def in_service(self) -> list[Replica]:
        """Those that get requests."""
        return [replica for replica in self.replicas if replica.out is None]

    @property
    def reasons(self) -> str:
        """Why the others get none."""
        return "; ".join(f"{replica.url}: {replica.out}" for replica in self.replicas if replica.out is not None)

    async def lease(self, key: bytes) -> Lease:
        """A place at a replica for a request of the conversation ``key``; `release` gives it back.

        Waits while new weights are pushed, and while no replica is in service. Raises `SamplerUnavailableError` where
        that takes too long.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    with self._lock:
                        found = self._take(key)
                        if isinstance(found, Lease):
                            return found
                        self._waiting.append(found)
                    await asyncio.wrap_future(found)
        except TimeoutError:
            raise SamplerUnavailableError(f"no vLLM replica is in service: {self.reasons or 'paused'}") from None

    def release(self, lease: Lease) -> None:
        """The request has ended, however."""
        with self._lock:
            in_flight = lease.replica.in_flight
            in_flight[lease.served.model] -= 1
            if not in_flight[lease.served.model]:
                del in_flight[lease.served.model]
                self._wake()

    def put_out(self, replica: Replica, reason: str, *, returns: bool = True) -> None:
        """It gets no more requests until `put_in`."""
        with self._lock:
            replica.out, replica.returns = reason, returns
            self._wake()
        self._on_failure(replica)

    def put_in(self, replica: Replica) -> None:
        """It gets requests from now on."""
        with self._lock:
            replica.out, replica.returns = None, True
            self._wake()

    def serve(self, served: Served) -> None:
        """Requests that begin from now on are answered with this."""
        with self._lock:
            self._served = served
            self._wake()

    def models_in_use(self, replica: Replica) -> set[str]:
        """The models that requests which run at a replica began with, and that of those to come."""
        with self._lock:
            return {*replica.in_flight, *([self._served.model] if self._served is not None else [])}

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Inside the block no request runs: those under way have ended, others wait.

        Raises `PolicyError` where they do not end."""
        with self._lock:
            self._paused = True
        try:
            await self._drained()
            yield
        finally:
            with self._lock:
                self._paused = False
                self._wake()

    def close(self) -> None:
        """Whoever waits, and whoever comes, gets `SamplerUnavailableError`."""
        with self._lock:
            self._closed = True
            self._wake()

    async def someone_in_service(self) -> None:
        """Waits until a replica is in service. Raises `PolicyError` where none is in time, or none will be."""
        await self._until(lambda: bool(self.in_service) or not self._any_returns)
        if not self.in_service:
            raise PolicyError(f"no vLLM replica is in service: {self.reasons}")

    @property
    def _any_returns(self) -> bool:
        return any(replica.returns for replica in self.replicas)

    async def _drained(self) -> None:
        if not await self._until(lambda: not any(replica.in_flight for replica in self.replicas)):
            raise PolicyError(
                f"requests still run {WAIT_SECONDS:.0f} s after new weights were to be pushed: lower engine.max_tokens"
            )

    async def _until(self, holds: Callable[[], bool]) -> bool:
        """Waits until something holds, for `WAIT_SECONDS` at most; returns whether it does."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    with self._lock:
                        if holds():
                            return True
                        change: Future[None] = Future()
                        self._waiting.append(change)
                    await asyncio.wrap_future(change)
        except TimeoutError:
            return False

    def _take(self, key: bytes) -> Lease | Future[None]:
        """A lease, or what is done when there may be one."""
        if self._closed:
            raise SamplerUnavailableError("the vLLM replicas are being stopped")
        ready = self.in_service
        if self._served is None or self._paused or not ready:
            return Future()
        replica = self._choose(key, ready)
        replica.in_flight[self._served.model] += 1
        return Lease(replica, self._served)

    def _choose(self, key: bytes, ready: Sequence[Replica]) -> Replica:
        least = min(ready, key=_load)
        home = self._homes.pop(key, None)
        chosen = home if home in ready and home is not None and _load(home) - _load(least) <= MORE_BUSY else least
        self._homes[key] = chosen
        if len(self._homes) > REMEMBERED:
            self._homes.popitem(last=False)
        return chosen

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():  # who gave up waiting has cancelled it
                future.set_result(None)


def conversation(prompt_ids: np.ndarray, rollout: str | None) -> bytes:
    """What requests that share a prefix have in common: their rollout, else how their prompts begin."""
    content = prompt_ids[:PREFIX_TOKENS].tobytes() if rollout is None else f"rollout/{rollout}".encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def _load(replica: Replica) -> int:
    return replica.in_flight.total()
