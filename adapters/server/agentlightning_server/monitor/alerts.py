"""Alerts: a log line, a hook of every plugin (``failure_share_changed``, ``promotion_changed``), and a POST. None holds
anything up."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import msgspec
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_random_exponential,
)

from agentlightning.redaction import redact, remember, remember_url
from agentlightning.share_changes import FailureChange
from agentlightning.store.promotions import Promotion
from agentlightning_server.errors import ServerError

logger = logging.getLogger(__name__)

MAX_WAITING = 100
"""Alerts that wait to be told; more are logged only."""
ATTEMPTS = 5
TIMEOUT_SECONDS = 10.0
LONGEST_PAUSE = 30.0
HEADERS = {"Content-Type": "application/json"}
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

Alert = FailureChange | Promotion
Notify = Callable[[Alert], None]


def alert_body(alert: Alert) -> bytes:
    """The JSON that is sent: the record, of a failure with its share before and since, and ``text`` for people (and for
    chats, which show that)."""
    fields = msgspec.to_builtins(alert)
    if isinstance(alert, FailureChange):
        fields["change"] |= {"before": alert.change.before, "since": alert.change.since}
    return msgspec.json.encode({"text": redact(str(alert)), "event": hook_of(alert), **fields})


def hook_of(alert: Alert) -> str:
    """What happened, as the hook of it that plugins are told by."""
    return "failure_share_changed" if isinstance(alert, FailureChange) else "promotion_changed"


def checked_url(url: str) -> str:
    """The URL that alerts are sent to. It may be a secret itself, as the ones of chats are, and is told nowhere.

    Raises `ServerError` where it is none.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and parts.hostname is not None
    except ValueError:
        is_url = False
    if not is_url:
        raise ServerError("--alert-url: expected an address such as https://alerts.example.com/agentlightning")
    remember_url(url)
    remember(url, parts.path)
    return url


class Alerts:
    """Tells of changes. ``notify`` is called in a thread of its own, however long it takes."""

    def __init__(self, notify: Notify, url: str | None = None) -> None:
        self._notify = notify
        self._url = None if url is None else checked_url(url)
        self._to_notify: queue.Queue[Alert | None] = queue.Queue(MAX_WAITING)
        self._to_send: asyncio.Queue[Alert] = asyncio.Queue(MAX_WAITING)
        self._sending: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to tell; on the event loop that `tell` is called on."""
        threading.Thread(target=self._notify_all, name="agentlightning-alerts", daemon=True).start()
        if self._url is not None:
            self._sending = asyncio.create_task(self._send_all(self._url))

    async def close(self) -> None:
        """Tells nothing any more; what waits is given up."""
        with suppress(queue.Full):
            self._to_notify.put_nowait(None)
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def tell(self, alert: Alert) -> None:
        """Logs an alert, and has it told; returns at once."""
        logger.warning("%s", alert)
        try:
            self._to_notify.put_nowait(alert)
            if self._sending is not None:
                self._to_send.put_nowait(alert)
        except (queue.Full, asyncio.QueueFull):
            logger.error("%d alerts wait to be told: this one was logged only", MAX_WAITING)

    def _notify_all(self) -> None:
        while (alert := self._to_notify.get()) is not None:
            try:
                self._notify(alert)
            except Exception:
                logger.exception("whoever is told of failures failed")

    async def _send_all(self, url: str) -> None:
        limits = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=limits, trust_env=True) as client:
            while True:
                await _send(client, url, alert_body(await self._to_send.get()))


async def _send(client: aiohttp.ClientSession, url: str, body: bytes) -> None:
    async def post() -> int:
        async with client.post(url, data=body, headers=HEADERS, allow_redirects=False) as answer:
            return answer.status

    trying = AsyncRetrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE),
        retry=retry_if_exception_type((aiohttp.ClientError, TimeoutError)) | retry_if_result(AGAIN.__contains__),
    )
    try:
        status: int = await trying(post)
    except RetryError:
        logger.error("an alert could not be sent to %s, and was given up after %d attempts", _host(url), ATTEMPTS)
    except Exception as error:  # noqa: BLE001 - the next alert is sent all the same
        logger.error("an alert could not be sent to %s: %s", _host(url), type(error).__name__)
    else:
        if status >= 300:
            logger.error("an alert was refused by %s with status %d", _host(url), status)


def _host(url: str) -> str:
    """The URL's host, which is all of it that is told."""
    return urlsplit(url).hostname or "an unknown host"
