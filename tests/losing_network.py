"""A network that loses answers of a Lightning Server on their way to its clients."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest


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
