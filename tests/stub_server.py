"""A real OpenAI-compatible HTTP server on loopback, for tests: it answers what it was told to, like vLLM
(token ids and log-probabilities on request, extra fields), and keeps the raw bytes of every request.

    with StubServer() as stub:
        stub.reply(tool_call("calculator", expression="3 + 4"), text("The answer is 7."))
        client = openai.OpenAI(base_url=stub.base_url, api_key="sk-test")

Answers are taken in order; when none is left, the server answers ``Hello.``. An answer may be a function of
the request, and stays until the server is told otherwise.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stub_answers import Answer, Raw, Received, Reply, text
from stub_wire import events, whole


class StubServer:
    """The server; ``base_url`` is what a client takes. ``requests`` are those received, in order."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self._replies: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def reply(self, *replies: Reply) -> None:
        """What to answer next, in this order; a function stays for good."""
        with self._lock:
            self._replies.extend(replies)

    def clear(self) -> None:
        """Forgets requests and answers: as good as new, for the next test."""
        with self._lock:
            self.requests.clear()
            self._replies.clear()
            self._ids = itertools.count(1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> StubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def answer(self, request: Received) -> tuple[Answer | Raw, int]:
        """The next answer, and its number."""
        with self._lock:
            self.requests.append(request)
            number = next(self._ids)
            reply: Reply = text("Hello.")
            if self._replies:
                reply = self._replies[0] if callable(self._replies[0]) else self._replies.popleft()
        return (reply(request) if callable(reply) else reply), number


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # the standard 5 refuses connections when many rollouts begin at once

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of many a test."""


def _handler(stub: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits for the acknowledgement of its headers

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            stub.answer(Received("GET", self.path, list(self.headers.items()), b""))
            self._send(Raw(200, json.dumps({"object": "list", "data": []}).encode()))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            request = Received("POST", self.path, list(self.headers.items()), body)
            answer, number = stub.answer(request)
            if isinstance(answer, Raw):
                self._send(answer)
                return
            if not request.json.get("stream"):
                if answer.hold is not None:
                    answer.hold.wait()
                self._send(Raw(200, json.dumps(whole(request, answer, number)).encode()))
                return
            self._stream(request, answer, number)

        def _send(self, raw: Raw) -> None:
            try:
                self.send_response(raw.status)
                for name, value in raw.headers.items():
                    self.send_header(name, value)
                self.send_header("content-type", raw.content_type)
                self.send_header("content-length", str(len(raw.body)))
                self.end_headers()
                self.wfile.write(raw.body)
            except OSError:
                self.close_connection = True

        def _stream(self, request: Received, answer: Answer, number: int) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for place, event in enumerate(events(request, answer, number)):
                    if place == 1 and answer.hold is not None:
                        answer.hold.wait()
                    if place == answer.breaks_after:
                        self.close_connection = True
                        return
                    if place == answer.error_after:
                        event = {"error": {"message": "the engine died", "type": "server_error", "code": None}}
                    kind = f"event: {event['type']}\n" if "type" in event else ""
                    self._chunk(f"{kind}data: {json.dumps(event)}\n\n".encode())
                if "/chat/" in request.path:
                    self._chunk(b"data: [DONE]\n\n")
                self._chunk(b"")
            except OSError:
                self.close_connection = True

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler
