"""The model that a run chose, for an agent that nobody changes: requests go on to its endpoint, answers come back."""

from __future__ import annotations

import asyncio
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import msgspec

from agentlightning.config import Port
from agentlightning.errors import PolicyError
from agentlightning.records import Policy
from agentlightning.redaction import remember
from agentlightning.serving import ModelServer, prepared

OPENAI = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
OPERATIONS = {"/chat/completions": "chat", "/responses": "responses", "/completions": "text_completion"}
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
PASSED_ON = ("content-type", "retry-after")
"""Headers of an answer that its client is shown."""


class ChosenModel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model answers, where, and the variable of this process's environment that holds the key."""

    model: str
    base_url: str | None = None
    api_key_env: str | None = None


class Listening(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where requests are taken; ``name`` is the model that they name."""

    name: str = "policy"
    port: Port = 0


class ForwardingServer(ModelServer):
    """Sends each request on to the endpoint of a chosen model, under that model's name and with this process's key."""

    ModelOptions = ChosenModel
    EngineOptions = Listening
    _server: ThreadingHTTPServer | None = None
    _client: httpx.Client | None = None

    async def start(self) -> Policy:
        variable = self.model.api_key_env or OPENAI_KEY
        key = os.environ.get(variable, "")
        if not key and self.model.api_key_env is not None:
            raise PolicyError(f"the environment variable {variable}, which should hold the API key, is not set")
        remember(key)
        self._client = httpx.Client(timeout=TIMEOUT, headers={"Authorization": f"Bearer {key or 'none'}"})
        port = self.engine.port
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler(self._client))
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

    def _handler(self, client: httpx.Client) -> type[BaseHTTPRequestHandler]:
        upstream = (self.model.base_url or OPENAI).rstrip("/")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - the name that http.server calls; self is the server
                path = handler.path.removeprefix("/v1")
                body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
                if path not in OPERATIONS:
                    _answer_error(handler, 404, f"POST {handler.path} is not served")
                    return
                if not self.any_name and _model_of(body) != self.engine.name:
                    _answer_error(handler, 404, f"only the model {self.engine.name!r} is served here")
                    return
                body = prepared(body, OPERATIONS[path], prompts=self.prompts, model=self.model.model)
                try:
                    _forward(client, upstream + path, body, handler)
                except httpx.HTTPError as error:
                    _answer_error(handler, 502, f"{upstream} cannot be reached: {error}")
                except ConnectionError:
                    return  # the client has left

            def log_message(handler, format: str, *arguments: Any) -> None:  # noqa: N805
                """Nothing: the terminal is the command's."""

        return Handler


def _forward(client: httpx.Client, url: str, body: bytes, handler: BaseHTTPRequestHandler) -> None:
    """Streams the answer as it comes: the connection's end is the body's."""
    with client.stream("POST", url, content=body, headers={"Content-Type": "application/json"}) as answer:
        handler.send_response(answer.status_code)
        for name in PASSED_ON:
            if name in answer.headers:
                handler.send_header(name, answer.headers[name])
        handler.end_headers()
        for chunk in answer.iter_bytes():
            handler.wfile.write(chunk)
            handler.wfile.flush()


def _answer_error(handler: BaseHTTPRequestHandler, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "api_error"}
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(msgspec.json.encode({"error": error}))


def _model_of(body: bytes) -> Any:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    return request.get("model") if isinstance(request, dict) else None
