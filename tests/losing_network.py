"""A network that loses answers of a Lightning Server on their way to its clients; and a port to which a server that was
stopped can come back."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable

import httpx
import pytest

_ports = itertools.count(20_000 + os.getpid() * 37 % 10_000)


def lasting_port() -> int:
    """A free port that no connection is given while its server is away: below those that systems hand out."""
    for port in _ports:
        try:
            with socket.create_server(("127.0.0.1", 20_000 + port % 10_000)) as listening:
                found: int = listening.getsockname()[1]
                return found
        except OSError:
            continue
    raise AssertionError("unreachable: the ports are counted without end")


class Network:
    """Loses answers: the server has done what it was asked, and the client hears nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost: list[str] = []
        self._losing: dict[str, Callable[[], None]] = {}
        real = httpx.AsyncHTTPTransport.handle_async_request

        async def handle(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
            response = await real(transport, request)
            await response.aread()
            self._pass_on(request.url.path)
            return response

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)

    def lose(self, method: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Loses the next answer to a method; ``meanwhile`` happens before the client asks again."""
        self._losing[method] = meanwhile

    def _pass_on(self, path: str) -> None:
        method = path.rpartition("/")[2]
        if method in self._losing:
            self._losing.pop(method)()
            self.lost.append(method)
            raise httpx.ReadError("the connection was lost")
