"""Every way to ask a model through the client, each as one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai

KEY = "sk-the-agents-own-key"
MESSAGES: list[Any] = [{"role": "user", "content": "Hi"}]
CHAT: dict[str, Any] = {"model": "gpt", "messages": MESSAGES}

Way = Callable[[str], Any]


def sync(base_url: str) -> Any:
    return _client(base_url).chat.completions.create(**CHAT)


def stream(base_url: str) -> Any:
    return list(_client(base_url).chat.completions.create(**CHAT, stream=True))


def asynchronous(base_url: str) -> Any:
    async def ask(client: openai.AsyncOpenAI) -> Any:
        return await client.chat.completions.create(**CHAT)

    return _run(base_url, ask)


def asynchronous_stream(base_url: str) -> Any:
    async def ask(client: openai.AsyncOpenAI) -> Any:
        return [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]

    return _run(base_url, ask)


def raw_response(base_url: str) -> Any:
    return _client(base_url).chat.completions.with_raw_response.create(**CHAT).parse()


def streaming_response(base_url: str) -> Any:
    with _client(base_url).chat.completions.with_streaming_response.create(**CHAT) as response:
        return response.parse()


def stream_helper(base_url: str) -> Any:
    with _client(base_url).chat.completions.stream(**CHAT) as events:
        return list(events)


def responses(base_url: str) -> Any:
    return _client(base_url).responses.create(model="gpt", input="Hi")


WAYS = [
    sync,
    stream,
    asynchronous,
    asynchronous_stream,
    raw_response,
    streaming_response,
    stream_helper,
    responses,
]


def _client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key=KEY, max_retries=0)


def _run(base_url: str, ask: Callable[[openai.AsyncOpenAI], Any]) -> Any:
    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as client:
            return await ask(client)

    return asyncio.run(run())
