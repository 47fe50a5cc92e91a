"""A stream of server-sent events, cut into them as it comes."""

from __future__ import annotations

from agentlightning_server.errors import RequestError
from agentlightning_server.wire import MAX_BODY_BYTES

DONE = b"[DONE]"


class EventSplitter:
    """Cuts a stream where its events end, wherever the pieces do in which it comes."""

    def __init__(self) -> None:
        self.rest = b""
        """What has come of an event that is not whole."""
        self._end = b""

    def split(self, data: bytes) -> list[bytes]:
        """The events that are whole now, each with the blank line that ends it. Raises `RequestError` (502) for one
        without an end."""
        data = self.rest + data
        if not self._end:
            line, newline, _ = data.partition(b"\n")
            if not newline:
                self.rest = data
                return []
            self._end = b"\r\n\r\n" if line.endswith(b"\r") else b"\n\n"
        *events, self.rest = data.split(self._end)
        if len(self.rest) > MAX_BODY_BYTES:
            raise RequestError(502, f"an event of the upstream's stream is larger than {MAX_BODY_BYTES // 1024**2} MiB")
        return [event + self._end for event in events]


def data_of(event: bytes) -> bytes:
    """What an event says, empty where it says nothing (a comment)."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event) - 2:
        return event[5:].strip()
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def with_data(event: bytes, data: bytes) -> bytes:
    """An event that says something else, its other lines as they were."""
    if event.startswith(b"data:") and event.endswith(b"\n\n") and event.find(b"\n") >= len(event) - 2:
        return b"data: " + data + b"\n\n"
    lines = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    newline = b"\r\n" if event.endswith(b"\r\n") else b"\n"
    return newline.join([*lines, b"data: " + data, b"", b""])
