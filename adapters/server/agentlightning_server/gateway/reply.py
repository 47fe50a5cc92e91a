"""Answers to clients, in the shape of the OpenAI API, their errors too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Send

from agentlightning.redaction import redact

JSON = b"application/json"
NOT_PASSED_ON = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding", "upgrade"),
        *("content-encoding", "content-length", "date", "server", "set-cookie"),
    )
)
"""Headers of an upstream's answer that are about its own connection, or its bytes as they were."""
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
RETRY_SECONDS = b"1"


class Reply:
    """What one client is answered. ``started`` says whether it has got anything."""

    def __init__(self, send: Send) -> None:
        self.started = False
        self._send = send

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer."""
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.write(body, more=False)

    async def json(self, value: Any) -> None:
        await self.whole(200, [(b"content-type", JSON)], msgspec.json.encode(value))

    async def problem(self, status: int, error: Exception, code: str | None = None) -> None:
        """An error; where a stream has begun, as its last event."""
        body = {"error": problem(status, error, code)}
        if self.started:
            event = b"data: " + msgspec.json.encode(body) + b"\n\n"
            await self.write(event, more=False)
            return
        headers = [(b"content-type", JSON)]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status == 503:
            headers.append((b"retry-after", RETRY_SECONDS))
        await self.whole(status, headers, msgspec.json.encode(body))


def problem(status: int, error: Exception, code: str | None = None) -> dict[str, Any]:
    """The object that says what was wrong."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": redact(str(error)), "type": kind, "param": None, "code": code}


def passed_on(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of an upstream's answer that its client gets."""
    names = ((name.lower(), value) for name, value in headers.items())
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in names if name not in NOT_PASSED_ON]


async def client_leaves(receive: Receive) -> None:
    """Returns when the client of a request is gone, whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
