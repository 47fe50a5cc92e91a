"""What the stub server is asked, and what it may be told to answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
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
    logprobs_mode: str | None = "tempered"
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


def stream(*chunks: dict[str, Any] | str) -> Raw:
    """A streamed answer of these chunks, word for word."""
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in (*chunks, "[DONE]")]
    return Raw(200, "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream")
