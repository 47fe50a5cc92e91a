"""What a run chose, for an agent that nobody changes: requests go on to the model's endpoint, answers come back."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import msgspec

from agentlightning.config import Port
from agentlightning.errors import PolicyError
from agentlightning.model_routing import choice_for, load_router, request_text
from agentlightning.records import ModelChoice, ModelRouter, Policy
from agentlightning.redaction import remember
from agentlightning.serving import ModelServer, prepared

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
OPERATIONS = {"/chat/completions": "chat", "/responses": "responses", "/completions": "text_completion"}
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
PASSED_ON = ("content-type", "retry-after")
"""Headers of an answer that its client is shown."""


class ChosenModel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model answers, where, and the variable of this process's environment that holds the key; with ``router``,
    what chooses one of its models by what the user of a conversation said first."""

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    router: ModelRouter | None = None


class Listening(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where requests are taken; ``name`` is the model that they name."""

    name: str = "policy"
    port: Port = 0


class Upstream(NamedTuple):
    """The model that a request goes to, its endpoint, and the header that holds this process's key for it."""

    model: str
    base_url: str
    authorization: str

    @classmethod
    def of(cls, chosen: ChosenModel | ModelChoice) -> Upstream:
        """Raises `PolicyError` where the variable that holds its key is not set."""
        variable = chosen.api_key_env or OPENAI_KEY
        key = os.environ.get(variable, "")
        if not key and chosen.api_key_env is not None:
            raise PolicyError(
                f"{chosen.model}: the environment variable {variable}, which should hold its API key, is not set"
            )
        remember(key)
        return cls(chosen.model, (chosen.base_url or OPENAI).rstrip("/"), f"Bearer {key or 'none'}")


class ForwardingServer(ModelServer):
    """Sends each request on to the endpoint of a chosen model, under that model's name and with this process's key.

    Where a router chooses, it does so for each request by the first message of its user, which stays the same as a
    conversation goes on, and with it the model.
    """

    ModelOptions = ChosenModel
    EngineOptions = Listening
    _server: ThreadingHTTPServer | None = None
    _client: httpx.Client | None = None

    async def start(self) -> Policy:
        router = self.model.router
        if router is None:
            upstreams = {"": Upstream.of(self.model)}
        else:
            upstreams = {choice.name: Upstream.of(choice) for choice in router.choices}
            await asyncio.to_thread(load_router, router)
        self._client = httpx.Client(timeout=TIMEOUT)
        port = self.engine.port
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler(self._client, upstreams))
        except OSError as error:
            self._client.close()
            raise PolicyError(
                f"nothing can listen on 127.0.0.1:{port}: {error.strerror or error}; name a free port, or 0"
            ) from error
        threading.Thread(target=self._server.serve_forever, name="agentlightning-forwarding", daemon=True).start()
        base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return Policy(name=self.model.model, model=self.engine.name, base_url=base_url)

    async def aclose(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.shutdown)
            server.server_close()
        if self._client is not None:
            self._client.close()

    def _handler(self, client: httpx.Client, upstreams: Mapping[str, Upstream]) -> type[BaseHTTPRequestHandler]:
        router = self.model.router

        def upstream_of(body: bytes, operation: str) -> Upstream:
            if router is None:
                return upstreams[""]
            return upstreams[choice_for(router, request_text(_decoded(body), operation)).name]

        def answer(handler: BaseHTTPRequestHandler) -> None:
            path = handler.path.removeprefix("/v1")
            length = handler.headers.get("Content-Length") or ""
            if not length.isdecimal():
                _answer_error(handler, 411, "a request needs a Content-Length, in bytes")
                return
            body = handler.rfile.read(int(length))
            if path not in OPERATIONS:
                _answer_error(handler, 404, f"POST {handler.path} is not served")
                return
            if not self.any_name and _decoded(body).get("model") != self.engine.name:
                _answer_error(handler, 404, f"only the model {self.engine.name!r} is served here")
                return
            try:
                upstream = upstream_of(body, OPERATIONS[path])
            except Exception as error:
                logger.exception("no model could be chosen for a request")
                _answer_error(handler, 500, f"no model could be chosen: {error}")
                return
            body = prepared(body, OPERATIONS[path], prompts=self.prompts, model=upstream.model, defaults=self.sampling)
            try:
                _forward(client, upstream, path, body, handler)
            except httpx.HTTPError as error:
                _answer_error(handler, 502, f"{upstream.base_url} cannot be reached: {error}")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(handler) -> None:  # noqa: N805 - the name that http.server calls; self is the server
                with suppress(ConnectionError):  # the client has left
                    answer(handler)

            def log_message(handler, format: str, *arguments: Any) -> None:  # noqa: N805
                """Nothing: the terminal is the command's."""

        return Handler


def _forward(client: httpx.Client, upstream: Upstream, path: str, body: bytes, handler: BaseHTTPRequestHandler) -> None:
    """Streams the answer as it comes, in chunks: one that breaks off has no last chunk, which its client notices.

    Raises `httpx.HTTPError` where no answer has begun.
    """
    url = upstream.base_url + path
    headers = {"Content-Type": "application/json", "Authorization": upstream.authorization}
    with client.stream("POST", url, content=body, headers=headers) as answer:
        handler.send_response(answer.status_code)
        for name in PASSED_ON:
            if name in answer.headers:
                handler.send_header(name, answer.headers[name])
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        try:
            for part in answer.iter_bytes():
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                handler.wfile.flush()
        except httpx.HTTPError as error:
            logger.warning("%s broke off its answer: %s", url, error)
        else:
            handler.wfile.write(b"0\r\n\r\n")


def _answer_error(handler: BaseHTTPRequestHandler, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "api_error"}
    handler.send_response(status)
    content = msgspec.json.encode({"error": error})
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(content)


def _decoded(body: bytes) -> dict[str, Any]:
    """A request's body; empty where it is none, which its endpoint will say."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}
