"""A replica that failed: restarted where it was started here, and in again with the present weights."""

from __future__ import annotations

import asyncio
import logging
import time

from agentlightning.errors import PolicyError
from agentlightning_gateway.endpoint import UnreachableError
from agentlightning_vllm.process import VllmProcess
from agentlightning_vllm.publisher import Publisher
from agentlightning_vllm.replicas import Replica, ReplicaSet

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds between looks at a server that does not answer: it tells nobody when it is back."""
RESTARTS = 3
"""How many times in a row a server is started again before it stays out."""


class Recovery:
    """Watches over the replicas of a run. For use from one event loop, but for `failed`."""

    def __init__(self, *, start_seconds: float) -> None:
        self._start_seconds = start_seconds
        self._loop = asyncio.get_running_loop()
        self._failures: dict[Replica, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def failed(self, replica: Replica) -> None:
        """Has a replica brought back. From any thread."""
        event = self._failures.get(replica)
        if event is not None:
            self._loop.call_soon_threadsafe(event.set)

    def watch(self, replicas: ReplicaSet, publisher: Publisher) -> None:
        """From now on, until `aclose`."""
        for replica in replicas.replicas:
            self._failures[replica] = event = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._watch(replica, event, replicas, publisher)))
            if replica.process is not None:
                self._tasks.append(asyncio.create_task(self._watch_process(replica, replica.process, replicas)))

    async def aclose(self) -> None:
        """Ends watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _watch_process(self, replica: Replica, process: VllmProcess, replicas: ReplicaSet) -> None:
        """Notices that a server has ended, also where nobody asks it."""
        await process.wait()
        if not process.alive:  # or it has been started again already
            replicas.put_out(replica, f"its process has ended; see {process.log}")

    async def _watch(self, replica: Replica, event: asyncio.Event, replicas: ReplicaSet, publisher: Publisher) -> None:
        while True:
            await event.wait()
            event.clear()
            if replica.out is not None and not await self._brought_back(replica, replicas, publisher):
                return

    async def _brought_back(self, replica: Replica, replicas: ReplicaSet, publisher: Publisher) -> bool:
        """Tries until a replica is in again; whether it is, or stays out for good."""
        pause, starts = FIRST_PAUSE, 0
        while True:
            logger.warning("vLLM replica %s is out: %s", replica.url, replica.out)
            process = replica.process
            if process is not None and not await self._is_up(replica, process):
                if starts == RESTARTS:
                    logger.error("vLLM replica %s stays out: it was started %s times", replica.url, starts)
                    replicas.put_out(replica, str(replica.out), returns=False)
                    return False
                starts += 1
                await self._restart(replica, process, replicas)
            try:
                await answers(replica, self._start_seconds)
                await publisher.bring_back(replica)
            except PolicyError as error:
                replicas.put_out(replica, str(error), returns=isinstance(error, UnreachableError))
            else:
                logger.warning("vLLM replica %s is in again", replica.url)
                return True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _is_up(self, replica: Replica, process: VllmProcess) -> bool:
        return process.alive and await replica.control.healthy()

    async def _restart(self, replica: Replica, process: VllmProcess, replicas: ReplicaSet) -> None:
        await process.stop()  # of one that has ended, what it has left behind
        await process.start()
        self._tasks.append(asyncio.create_task(self._watch_process(replica, process, replicas)))


async def answers(replica: Replica, seconds: float) -> None:
    """Waits until a replica answers. Raises `UnreachableError` where it does not within ``seconds``, or ends before."""
    until, pause = time.monotonic() + seconds, FIRST_PAUSE
    process = replica.process
    while not await replica.control.healthy():
        if process is not None and not process.alive:
            raise UnreachableError(f"vLLM ended as it was started; {process.log} ends with:\n{process.tail()}")
        if time.monotonic() > until:
            log = "" if process is None else f"; {process.log} ends with:\n{process.tail()}"
            raise UnreachableError(f"vLLM at {replica.url} did not answer within {seconds:g} s{log}")
        await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))
        pause = min(1.5 * pause, 5.0)
