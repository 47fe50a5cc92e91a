"""Rollouts sent as they finish, from a thread of its own, while the run goes on."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections.abc import Sequence
from functools import cache

from agentlightning.records import Rollout, Span, Task
from agentlightning_otel.errors import OtlpError
from agentlightning_otel.outgoing import otlp_spans, resource_of
from agentlightning_otel.sender import Sender

logger = logging.getLogger(__name__)

MOST_WAITING = 1024
"""Rollouts that may wait to be sent; further ones are left out and counted."""
FLUSH_SECONDS = 10.0

_Finished = tuple[Rollout, Sequence[Span], Task | None]


class LiveSender:
    """Sends what it is given, in order. An endpoint that fails costs what was to be sent, and one warning."""

    def __init__(self, endpoint: str) -> None:
        """Raises `OtlpError` where the endpoint is no address."""
        self._sender = Sender(endpoint, retries=2)
        self._waiting: queue.Queue[_Finished] = queue.Queue(MOST_WAITING)
        self._lost = 0
        threading.Thread(target=self._send_all, name="agentlightning-otel-sender", daemon=True).start()

    def send(self, rollout: Rollout, spans: Sequence[Span], task: Task | None) -> None:
        """Hands a rollout over; returns at once."""
        try:
            self._waiting.put_nowait((rollout, spans, task))
        except queue.Full:
            self._lose(rollout, "more than can be sent are waiting")

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Waits until everything handed over was sent or lost, but no longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._waiting.all_tasks_done.wait(left)

    def _send_all(self) -> None:
        while True:
            rollout, spans, task = self._waiting.get()
            try:
                resource = resource_of(rollout.run_id, os.environ.get("OTEL_SERVICE_NAME"))
                self._sender.send(resource, otlp_spans(rollout, spans, task))
            except OtlpError as error:
                self._lose(rollout, str(error))
            except Exception:
                logger.exception("rollout %s could not be made into a trace; it is not sent", rollout.id)
            finally:
                self._waiting.task_done()

    def _lose(self, rollout: Rollout, reason: str) -> None:
        self._lost += 1
        level = logging.WARNING if self._lost == 1 else logging.DEBUG
        logger.log(
            level,
            "rollout %s is not sent: %s. `agl otel send %s` sends what the store has",
            rollout.id,
            reason,
            rollout.run_id,
        )


@cache
def live_sender(endpoint: str) -> LiveSender | None:
    """The one sender of this process to an endpoint; None, with an error in the log, where it is no address."""
    try:
        sender = LiveSender(endpoint)
    except OtlpError as error:
        logger.error("rollouts are not sent: %s", error)
        return None
    atexit.register(sender.flush)
    return sender
