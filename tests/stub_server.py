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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request as it came in. ``headers`` in order and case as sent."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Call:
    """A tool call that the model makes."""

    name: str
    arguments: str
    id: str = "call_1"


@dataclass
class Choice:
    """One message of the model. Without ``token_ids``, one token a character of the content."""

    content: str | None = None
    calls: list[Call] = field(default_factory=list)
    refusal: str | None = None
    reasoning: str | None = None
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        if self.token_ids is None:
            written = self.content or "".join(call.arguments for call in self.calls)
            self.token_ids = [1000 + ord(character) for character in written]
        if self.logprobs is None:
            self.logprobs = [-0.25 * (1 + place % 4) for place in range(len(self.token_ids))]
        if self.finish_reason is None:
            self.finish_reason = "tool_calls" if self.calls else "stop"


@dataclass
class Answer:
    """A good answer. ``breaks_after`` drops a stream's connection after that many chunks; ``hold`` is waited
    for before a stream's second chunk, or before the whole of an answer that is no stream."""

    choices: list[Choice]
    prompt_token_ids: list[int] = field(default_factory=lambda: [1, 2, 3])
    policy_version: int | None = None
    exact: bool | None = None
    """Whether token ids are given; None: where the request asks for them."""
    breaks_after: int | None = None
    error_after: int | None = None
    hold: threading.Event | None = None


@dataclass
class Raw:
    """Any status and body."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Reply = Answer | Raw | Callable[[Received], "Answer | Raw"]


def text(content: str, **options: Any) -> Answer:
    """The model says something."""
    return Answer([Choice(content)], **options)


def tool_call(name: str, /, *, id: str = "call_1", content: str | None = None, **arguments: Any) -> Answer:
    """The model calls a tool."""
    return Answer([Choice(content, [Call(name, json.dumps(arguments), id)])])


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Raw:
    """An error in the shape of the OpenAI API. Header names are given with underscores."""
    body = {"error": {"message": message, "type": "stub_error", "param": None, "code": code}}
    return Raw(status, json.dumps(body).encode(), headers={name.replace("_", "-"): v for name, v in headers.items()})


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
                self._send(Raw(200, json.dumps(_whole(request, answer, number)).encode()))
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
                for place, event in enumerate(_events(request, answer, number)):
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


def _whole(request: Received, answer: Answer, number: int) -> dict[str, Any]:
    if "/embeddings" in request.path:
        return {
            "object": "list",
            "model": request.json["model"],
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
    if "/chat/" not in request.path:
        return _response(request, answer, number)
    return _chat(request, answer, number)


def _events(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    if "/chat/" in request.path:
        return _chat_chunks(request, answer, number)
    return _response_events(request, answer, number)


def _exact(request: Received, answer: Answer) -> bool:
    return bool(request.json.get("return_token_ids")) if answer.exact is None else answer.exact


def _logprobs(request: Received, choice: Choice, logprobs: list[float]) -> dict[str, Any] | None:
    if not request.json.get("logprobs"):
        return None
    return {"content": [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in logprobs]}


def _usage(answer: Answer) -> dict[str, int]:
    written = sum(len(choice.token_ids or ()) for choice in answer.choices)
    read = len(answer.prompt_token_ids)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _calls(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.calls
    ]


def _extra(answer: Answer, exact: bool) -> dict[str, Any]:
    extra: dict[str, Any] = {"prompt_token_ids": answer.prompt_token_ids} if exact else {}
    if answer.policy_version is not None:
        extra["policy_version"] = answer.policy_version
    return extra


def _chat(request: Received, answer: Answer, number: int) -> dict[str, Any]:
    exact = _exact(request, answer)
    choices = []
    for index, choice in enumerate(answer.choices):
        message: dict[str, Any] = {"role": "assistant", "content": choice.content, "refusal": choice.refusal}
        if choice.calls:
            message["tool_calls"] = _calls(choice)
        if choice.reasoning is not None:
            message["reasoning_content"] = choice.reasoning
        row = {"index": index, "message": message, "finish_reason": choice.finish_reason}
        row["logprobs"] = _logprobs(request, choice, choice.logprobs or [])
        if exact:
            row["token_ids"] = choice.token_ids
        choices.append(row)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1700000000,
        "model": request.json["model"],
        "choices": choices,
        "usage": _usage(answer),
        **_extra(answer, exact),
    }


def _pieces(answer: Answer) -> Iterator[tuple[int, dict[str, Any], slice]]:
    """Deltas with the tokens they stand for: two characters at a time, calls in three pieces."""
    for index, choice in enumerate(answer.choices):
        size = len(choice.token_ids or ())
        if choice.reasoning is not None:
            yield index, {"reasoning_content": choice.reasoning}, slice(0, 0)
        if choice.refusal is not None:
            yield index, {"refusal": choice.refusal}, slice(0, 0)
        content = choice.content or ""
        for start in range(0, len(content), 2):
            stop = size if start + 2 >= len(content) else start + 2
            yield index, {"content": content[start : start + 2]}, slice(start, stop)
        for place, call in enumerate(choice.calls):
            half = len(call.arguments) // 2
            head = {"name": call.name, "arguments": ""}
            yield index, {"tool_calls": [{"index": place, "id": call.id, "type": "function", "function": head}]}, _NONE
            for part, tokens in ((call.arguments[:half], slice(0, half)), (call.arguments[half:], slice(half, size))):
                taken = tokens if not content and place == 0 else _NONE
                yield index, {"tool_calls": [{"index": place, "function": {"arguments": part}}]}, taken


_NONE = slice(0, 0)


def _chat_chunks(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    exact = _exact(request, answer)
    wants_usage = (request.json.get("stream_options") or {}).get("include_usage")

    def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        usage = {"usage": None} if wants_usage else {}
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1700000000}
        return {**head, "model": request.json["model"], "choices": choices, **usage, **more}

    def row(index: int, delta: dict[str, Any], tokens: slice, finish: str | None = None) -> dict[str, Any]:
        choice = answer.choices[index]
        made: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
        if tokens.stop > tokens.start:
            made["logprobs"] = _logprobs(request, choice, (choice.logprobs or [])[tokens])
            if exact:
                made["token_ids"] = (choice.token_ids or [])[tokens]
        return made

    first = [row(index, {"role": "assistant", "content": ""}, _NONE) for index in range(len(answer.choices))]
    yield chunk(first, **_extra(answer, exact))
    for index, delta, tokens in _pieces(answer):
        yield chunk([row(index, delta, tokens)])
    for index, choice in enumerate(answer.choices):
        yield chunk([row(index, {}, _NONE, choice.finish_reason)])
    if wants_usage:
        yield chunk([], usage=_usage(answer))


def _response(request: Received, answer: Answer, number: int, status: str = "completed") -> dict[str, Any]:
    choice = answer.choices[0]
    exact = _exact(request, answer)
    if choice.finish_reason == "length" and status == "completed":
        status = "incomplete"
    usage = _usage(answer)
    body: dict[str, Any] = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": request.json.get("instructions"),
        "model": request.json["model"],
        "output": _items(choice) if status != "in_progress" else [],
        "parallel_tool_calls": True,
        "temperature": request.json.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": request.json.get("tools", []),
        "top_p": 1.0,
        "usage": None,
        **_extra(answer, exact),
    }
    if status != "in_progress":
        body["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        if exact:
            body["token_ids"], body["logprobs"] = choice.token_ids, choice.logprobs
    return body


def _items(choice: Choice) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if choice.reasoning is not None:
        summary = [{"type": "summary_text", "text": choice.reasoning}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary})
    if choice.content is not None:
        part = {"type": "output_text", "text": choice.content, "annotations": []}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
    if choice.refusal is not None:
        refusal = {"type": "refusal", "refusal": choice.refusal}
        items.append(
            {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed", "content": [refusal]}
        )
    for place, call in enumerate(choice.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{place}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items


def _response_events(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(numbers), **fields}

    started = _response(request, answer, number, "in_progress")
    yield event("response.created", response=started)
    for place, item in enumerate(_items(answer.choices[0])):
        where = {"output_index": place, "item_id": item["id"]}
        if item["type"] == "message" and "text" in item["content"][0]:
            empty = {**item, "content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=place, item=empty)
            part = {"type": "output_text", "text": "", "annotations": []}
            yield event("response.content_part.added", content_index=0, part=part, **where)
            said = item["content"][0]["text"]
            for start in range(0, len(said), 2):
                delta = said[start : start + 2]
                yield event("response.output_text.delta", content_index=0, delta=delta, logprobs=[], **where)
            yield event("response.output_text.done", content_index=0, text=said, logprobs=[], **where)
            yield event("response.content_part.done", content_index=0, part=item["content"][0], **where)
        elif item["type"] == "function_call":
            empty = {**item, "arguments": "", "status": "in_progress"}
            yield event("response.output_item.added", output_index=place, item=empty)
            yield event("response.function_call_arguments.delta", delta=item["arguments"], **where)
            yield event("response.function_call_arguments.done", arguments=item["arguments"], **where)
        else:
            yield event("response.output_item.added", output_index=place, item=item)
        yield event("response.output_item.done", output_index=place, item=item)
    whole = _response(request, answer, number)
    yield event(f"response.{whole['status']}", response=whole)
