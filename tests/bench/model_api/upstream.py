"""An OpenAI-compatible server for ``tests/bench/gateway.py``: it draws nothing and waits for nothing, and answers each
chat of 512 tokens with 128, their ids and log-probabilities.

It has an engine's API server for its model: its answers look as vLLM's do and are written as vLLM writes them, from
pydantic models, whole ones through ``json.dumps``, each chunk of a stream by itself. Prints its base URL, and serves
until its standard input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pydantic
import uvicorn

from agentlightning.adapterkit.listening import listen

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128
PROMPT_IDS = list(range(1000, 1000 + PROMPT_TOKENS))
WORDS = [f" word{index}" for index in range(ANSWER_TOKENS)]
LOGPROBS = [-0.0123456 * (1 + index % 64) for index in range(ANSWER_TOKENS)]
USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": ANSWER_TOKENS,
    "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
}
_ids = itertools.count()


class Token(pydantic.BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[Any]


class Logprobs(pydantic.BaseModel):
    content: list[Token]


class Message(pydantic.BaseModel):
    role: str
    content: str | None
    refusal: str | None = None
    tool_calls: list[Any] = []


class Choice(pydantic.BaseModel):
    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: str | None
    stop_reason: str | None = None
    token_ids: list[int] | None


class ChatCompletion(pydantic.BaseModel):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: dict[str, int]
    prompt_token_ids: list[int] | None
    logprobs_mode: str | None


class Delta(pydantic.BaseModel):
    role: str | None = None
    content: str | None = None


class ChunkChoice(pydantic.BaseModel):
    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: str | None
    token_ids: list[int] | None = None


class Chunk(pydantic.BaseModel):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: dict[str, int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs_mode: str | None = None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers a chat completion, whole or as a stream, and ``/health``."""
    body, more = b"", scope["type"] == "http"
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    request = json.loads(body) if body else {}
    if request.get("stream"):
        await _stream(request, send)
    else:
        await _answer(send, json.dumps(_whole(request).model_dump() if body else {}).encode())


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(request: dict[str, Any], send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for chunk in _chunks(request):
        event = f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n".encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
        await asyncio.sleep(0)  # as between the steps of an engine: others are served
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _head(request: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"chatcmpl-{next(_ids)}", "created": 1700000000, "model": request["model"]}


def _tokens(start: int, stop: int) -> Logprobs:
    return Logprobs(
        content=[
            Token(token=WORDS[at], logprob=LOGPROBS[at], bytes=[*WORDS[at].encode()], top_logprobs=[])
            for at in range(start, stop)
        ]
    )


def _whole(request: dict[str, Any]) -> ChatCompletion:
    exact = bool(request.get("return_token_ids"))
    choice = Choice(
        index=0,
        message=Message(role="assistant", content="".join(WORDS)),
        logprobs=_tokens(0, ANSWER_TOKENS) if request.get("logprobs") else None,
        finish_reason="stop",
        token_ids=list(range(ANSWER_TOKENS)) if exact else None,
    )
    return ChatCompletion(
        **_head(request),
        choices=[choice],
        usage=USAGE,
        prompt_token_ids=PROMPT_IDS if exact else None,
        logprobs_mode="tempered" if exact else None,
    )


def _chunks(request: dict[str, Any]) -> Iterator[Chunk]:
    exact, logprobs = bool(request.get("return_token_ids")), bool(request.get("logprobs"))
    head = {**_head(request), "object": "chat.completion.chunk"}
    extra = {"prompt_token_ids": PROMPT_IDS, "logprobs_mode": "tempered"} if exact else {}
    first = ChunkChoice(index=0, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None)
    yield Chunk(**head, choices=[first], **extra)
    for at in range(ANSWER_TOKENS):
        choice = ChunkChoice(
            index=0,
            delta=Delta(content=WORDS[at]),
            logprobs=_tokens(at, at + 1) if logprobs else None,
            finish_reason="stop" if at == ANSWER_TOKENS - 1 else None,
            **({"token_ids": [at]} if exact else {}),
        )
        yield Chunk(**head, choices=[choice])
    if (request.get("stream_options") or {}).get("include_usage"):
        yield Chunk(**head, choices=[], usage=USAGE)


def main() -> None:
    socket = listen("127.0.0.1", 0)
    options: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"}
    server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", **options))
    print(f"http://127.0.0.1:{socket.getsockname()[1]}/v1", flush=True)

    def stop() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop, daemon=True).start()
    server.run([socket])


if __name__ == "__main__":
    main()
