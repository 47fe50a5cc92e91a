"""Calls of a model, so many at once, with as little work of its own as may be: for ``tests/bench/gateway.py``.

``python load.py URL --at-once N --seconds S [--stream] [--logprobs]`` prints, as JSON, how many calls were answered, in
how many seconds, and how long the median of them took (milliseconds). Fails where an answer is not whole.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from urllib.parse import urlsplit

import uvloop

PROMPT = " ".join(f"word{index}" for index in range(512))


class Load:
    """``at_once`` connections, each of which asks again as soon as it was answered, until the time is up."""

    def __init__(self, url: str, *, stream: bool, logprobs: bool) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        body = {"model": "bench", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
        if logprobs:
            body |= {"logprobs": True, "return_token_ids": True}
        content = json.dumps(body).encode()
        lines = [f"POST {parts.path}/chat/completions HTTP/1.1", f"Host: {parts.netloc}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
        self._request = "\r\n".join(lines).encode() + content
        self._stream = stream
        self.took: list[float] = []

    async def run(self, at_once: int, seconds: float, calls: int | None = None) -> float:
        """Asks for so many seconds, or until there were so many calls; returns how long that was."""
        began = time.perf_counter()
        until = began + seconds
        left = iter(range(calls)) if calls is not None else iter(int, 1)
        await asyncio.gather(*(self._connection(until, left) for _ in range(at_once)))
        return time.perf_counter() - began

    async def _connection(self, until: float, left: object) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**20)
        while time.perf_counter() < until and next(left, None) is not None:  # type: ignore[call-overload]
            began = time.perf_counter()
            writer.write(self._request)
            await self._answer(reader)
            self.took.append((time.perf_counter() - began) * 1e3)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"answered {head!r} {await reader.read(2000)!r}")
        if self._stream:
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            whole = b"[DONE]" in body and body.count(b"data: ") >= 128
        else:
            body = await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            whole = b'"finish_reason"' in body
        if not whole:
            raise SystemExit(f"an answer is not whole: {body[-500:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--calls", type=int)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--logprobs", action="store_true")
    arguments = parser.parse_args()
    load = Load(arguments.url, stream=arguments.stream, logprobs=arguments.logprobs)
    took = uvloop.run(load.run(arguments.at_once, arguments.seconds, arguments.calls))
    print(json.dumps({"calls": len(load.took), "seconds": took, "milliseconds": statistics.median(load.took)}))


if __name__ == "__main__":
    main()
