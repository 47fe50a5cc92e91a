"""Lightning Server: a store on this machine, for whoever has its address and a key."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn
import uvloop

from agentlightning.adapterkit.listening import is_loopback, listen
from agentlightning.errors import AgentLightningError
from agentlightning_server.app import App
from agentlightning_server.errors import ServerError
from agentlightning_server.gateway.upstreams import upstreams_at
from agentlightning_server.keys import Keys
from agentlightning_server.monitor.monitor import Monitor
from agentlightning_server.monitor.observed import open_observed
from agentlightning_server.sessions import Sessions
from agentlightning_server.training.manager import MAX_WAITING, TrainingManager
from agentlightning_server.wire import KEY_VARIABLE, LOOPBACK

PORT = 8080
SESSION_SECONDS = 60.0
MAX_SESSIONS = 1024
SHUTDOWN_SECONDS = 5
KEEP_ALIVE_SECONDS = 600
"""How long a connection may be idle. A server that closes one sooner than its client does so under the next request."""


class LightningServer:
    """Serves the embedded store at a URL (``sqlite:///…``)::

        with LightningServer("sqlite:///runs/agentlightning.db") as server:
            store = open_store(server.url)

    ``key`` is the admin key, by default that in ``AGL_SERVER_KEY``; without one only this machine may ask.
    ``upstreams`` are the base URLs that model calls are passed on to, with the key in a variable of the environment.
    ``alert_url`` is where it POSTs that the share of a failure has changed. The port (0: any that is free) is bound on
    construction. Raises `ServerError` where it cannot be, and `StoreError` from `start` where the store cannot be
    opened.

    With ``train_in``, a folder, it trains what is submitted to it, ``max_trainings`` at once, while
    ``max_waiting`` others wait, and imports from there what configs name.
    """

    def __init__(
        self,
        store: str,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        key: str | None = None,
        session_seconds: float = SESSION_SECONDS,
        max_sessions: int = MAX_SESSIONS,
        train_in: Path | None = None,
        max_trainings: int = 1,
        max_waiting: int = MAX_WAITING,
        upstreams: Sequence[str] = (),
        upstream_key_variable: str | None = None,
        alert_url: str | None = None,
    ) -> None:
        self._key = key or os.environ.get(KEY_VARIABLE) or None
        keys = Keys(self._key)
        if not keys.required and not is_loopback(host):
            raise ServerError(
                f"--host {host} is open to other machines, and there is no key: set {KEY_VARIABLE} to one that clients "
                "send, too, or leave --host at 127.0.0.1"
            )
        if not store.startswith("sqlite:///"):
            raise ServerError(f"store {store!r}: a server keeps its store in a file; write sqlite:///PATH")
        self._url, self._keys = store, keys
        self._limits: dict[str, Any] = {"seconds": session_seconds, "limit": max_sessions}
        self._train_in, self._max_trainings, self._max_waiting = train_in, max_trainings, max_waiting
        self._trainings: TrainingManager | None = None
        self._upstreams = upstreams_at(upstreams, upstream_key_variable)
        self._monitor = Monitor(alert_url=alert_url)
        self._socket = _bind(host, port)
        self._sessions: Sessions
        self.app: App
        """What answers, from `start` on."""
        self._http: uvicorn.Server
        self._serving: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()

    @property
    def url(self) -> str:
        """What clients open as their store."""
        return self._url_at(socket.gethostname())

    def _url_at(self, name: str) -> str:
        """Its address, with a name of this machine where it listens at every address."""
        host, port = self._socket.getsockname()[:2]
        if ipaddress.ip_address(host).is_unspecified:
            host = name
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def start(self) -> None:
        """Opens the store and begins to answer. Raises `StoreError`, and `ServerError` where it cannot train."""
        try:
            if self._train_in is not None:
                self._trainings = TrainingManager(
                    self._train_in.absolute(), most=self._max_trainings, most_waiting=self._max_waiting, key=self._key
                )
            store = open_observed(self._url)
        except AgentLightningError:
            self._socket.close()
            raise
        self._sessions = Sessions(store, **self._limits)
        store.observer = self._monitor
        self.app = App(store, self._sessions, self._keys, self._monitor, self._trainings, self._upstreams)
        quiet: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "lifespan": "off",
            "ws": "none",
            "http": "httptools",
            "proxy_headers": False,
        }
        self._http = uvicorn.Server(
            uvicorn.Config(
                self.app.asgi,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                **quiet,
            )
        )
        threading.Thread(target=self._run, name="agentlightning-server", daemon=True).start()
        self._serving.result()

    def stop(self) -> None:
        """Has trainings end, answers what came in, and closes the store. What clients hold stays theirs for as long as
        it would if this server had died, so that they can go on with the next one. Raises `StoreError`."""
        if self._trainings is not None and not self._ended.done():
            asyncio.run_coroutine_threadsafe(self._trainings.close(), self._serving.result()).result()
        self._http.should_exit = True
        self.app.stop_soon()
        self._ended.result()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised by `start` or `stop`
            if not self._serving.done():
                self._serving.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        with closing(self._socket):
            async with self.app.running():
                if self._trainings is not None:
                    self._trainings.start(self._url_at(LOOPBACK[0]), self._sessions)
                self._serving.set_result(asyncio.get_running_loop())
                await self._http.serve([self._socket])

    def __enter__(self) -> LightningServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _bind(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; --port names another port, 0 any free one"
        ) from error
