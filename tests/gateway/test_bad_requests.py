"""Whatever is sent, the answer says what is wrong with it, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from agentlightning_gateway import sessions
from agentlightning_gateway.chat import BYTES_PER_TOKEN, Chat
from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import PolicyModel

Ask = Callable[..., Awaitable[Any]]
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def short(policy: PolicyModel) -> AsyncIterator[Engine]:
    """An engine with a short context."""
    async with Engine(policy, EngineConfig(max_context=256, max_tokens=4)) as engine:
        yield engine


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": HI, **fields}


def deep(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + "1" + closing * levels


def called_with(arguments: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return chat(messages=[*HI, {"role": "assistant", "tool_calls": [call]}])


DEEP_OBJECTS = deep(3000, '{"a":', "}").encode()
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[1]",
    "null": b"null",
    "no JSON": b"{nonsense",
    "not all of it": json.dumps(chat()).encode()[:-3],
    "no UTF-8": json.dumps(chat()).encode().replace(b"hi", b"\xff\xfe"),
    "UTF-16": json.dumps(chat()).encode("utf-16"),
    "compressed": gzip.compress(json.dumps(chat()).encode()),
    "half a surrogate pair": json.dumps(chat(messages=[{"role": "user", "content": "\ud83d"}])).encode(),
    "half a pair as a key": json.dumps(chat(metadata={"\udc00": 1})).encode(),
    "half a pair in UTF-8": json.dumps(chat()).encode().replace(b"hi", b"\xed\xa0\xbd"),
    "NaN": json.dumps(chat(temperature=float("nan"))).encode(),
    "a number out of range": json.dumps(chat()).encode()[:-1] + b', "temperature": 1e999}',
    "a number of 5,000 digits": json.dumps(chat()).encode()[:-1] + b', "seed": ' + b"9" * 5000 + b"}",
    "deep lists": json.dumps(chat()).encode()[:-1] + f', "tools": {deep(3000)}}}'.encode(),
    "deep objects": json.dumps(chat()).encode()[:-1] + b', "metadata": ' + DEEP_OBJECTS + b"}",
    "100,000 levels": b"[" * 100_000,
    "deep arguments": json.dumps(called_with(deep(3000))).encode(),
    "arguments of 200 levels": json.dumps(called_with(deep(200, '{"a":', "}"))).encode(),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("rollout", [None, "r"])
async def test_a_body_that_cannot_be_read_is_refused(
    engine: Engine, client: httpx.AsyncClient, name: str, rollout: str | None
) -> None:
    headers = {"x-agentlightning-rollout": rollout} if rollout else {}
    response = await client.post(f"{engine.base_url}/chat/completions", content=BODIES[name], headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]


FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"messages": [*HI, {"role": "function"}]}, "messages[1].role"),
    ("chat/completions", {"messages": [{"content": "hi"}]}, "messages[0]"),
    ("chat/completions", {"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ("chat/completions", {"messages": [{**HI[0], "function_call": {}}]}, "messages[0].function_call"),
    ("chat/completions", {"messages": [{**HI[0], "audio": {"id": "a"}}]}, "messages[0].audio"),
    ("chat/completions", {"max_tokens": -1}, "max_tokens"),
    ("chat/completions", {"max_tokens": 1.5}, "max_tokens"),
    ("chat/completions", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("chat/completions", {"temperature": -1}, "temperature"),
    ("chat/completions", {"temperature": 1e9}, "temperature"),
    ("chat/completions", {"n": 10**9}, "n"),
    ("chat/completions", {"n": -1}, "n"),
    ("chat/completions", {"stop": ["a"] * 100_000}, "stop"),
    ("chat/completions", {"seed": 1.5}, "seed"),
    ("chat/completions", {"seed": "x"}, "seed"),
    ("chat/completions", {"tools": {}}, "tools"),
    ("chat/completions", {"tools": [3]}, "tools[0]"),
    ("chat/completions", {"tool_choice": "sometimes"}, "tool_choice"),
    ("responses", {"input": [{"type": "message", "role": "user", "content": 3}]}, "input[0].content"),
    ("responses", {"max_output_tokens": -1}, "max_output_tokens"),
    *(
        ("completions", {"prompt": prompt}, "prompt")
        for prompt in ([999_999], [-5], [2**40], [2**70], [[1], [999_999]], [[]], [], "", [""], ["a"] * 2_000)
    ),
    ("completions", {"prompt": [1.5]}, "prompt[0]"),
    ("completions", {"prompt": [True]}, "prompt[0]"),
    ("completions", {"prompt": [[[1]]]}, "prompt[0][0]"),
    ("completions", {"prompt": "a", "max_tokens": -1}, "max_tokens"),
]


@pytest.mark.parametrize(("path", "fields", "param"), FIELDS)
async def test_a_value_that_makes_no_sense_is_refused_by_its_path(
    engine: Engine, client: httpx.AsyncClient, path: str, fields: dict[str, Any], param: str
) -> None:
    basis = {"chat/completions": {"messages": HI}, "responses": {"input": "hi"}, "completions": {}}[path]
    response = await client.post(f"{engine.base_url}/{path}", json={"model": "policy", **basis, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert len(error["message"]) < 3_000


@pytest.mark.parametrize("fields", [{"seed": 2**70}, {"seed": -1}, {"max_tokens": 2**70}, {"temperature": 1e-320}])
async def test_a_number_that_is_only_large_or_small_is_taken(ask: Ask, engine: Engine, fields: dict[str, Any]) -> None:
    assert (await ask(engine, HI, **{"max_tokens": 2, **fields}, stop="e"))["choices"]


async def test_an_image_is_refused_by_its_type(engine: Engine, client: httpx.AsyncClient) -> None:
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    body = chat(messages=[{"role": "user", "content": content}])
    response = await client.post(f"{engine.base_url}/chat/completions", json=body)
    assert "'image_url' is not supported, only text" in response.json()["error"]["message"]


async def test_a_token_out_of_the_vocabulary_harms_no_neighbour(
    engine: Engine, client: httpx.AsyncClient, ask: Ask
) -> None:
    alone = await ask(engine, HI, seed=1, max_tokens=16)
    bad = [
        client.post(f"{engine.base_url}/completions", json={"model": "policy", "prompt": [1, id]})
        for id in (999_999, -5, 2**40)
    ]
    *refused, beside = await asyncio.gather(*bad, ask(engine, HI, seed=1, max_tokens=16))
    assert [response.status_code for response in refused] == [400, 400, 400]
    assert beside["choices"] == alone["choices"]
    assert engine.sampler.stats.failed == 0


async def test_a_request_of_megabytes_is_refused_by_its_size(
    short: Engine, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("it was tokenised")

    monkeypatch.setattr(Chat, "encode", never)
    for path, fields in (
        ("chat/completions", {"messages": [{"role": "user", "content": "word " * 2_000_000}]}),
        ("responses", {"input": "word " * 2_000_000}),
        ("completions", {"prompt": "word " * 2_000_000}),
    ):
        response = await client.post(f"{short.base_url}/{path}", json={"model": "policy", **fields})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "context_length_exceeded")
        some = {
            name: json.loads(json.dumps(value).replace("word " * 2_000_000, "word " * 5_000))
            for name, value in fields.items()
        }
        response = await client.post(f"{short.base_url}/{path}", json={"model": "policy", **some})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "bytes long" in response.json()["error"]["message"]


async def test_what_fits_by_size_is_counted_in_tokens(short: Engine, client: httpx.AsyncClient) -> None:
    text = "a" * (256 * BYTES_PER_TOKEN - 200)
    response = await client.post(f"{short.base_url}/completions", json={"model": "policy", "prompt": text})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "tokens" in response.json()["error"]["message"]


async def test_others_are_answered_while_a_large_prompt_is_tokenised(
    engine: Engine, client: httpx.AsyncClient, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop, encode = asyncio.get_running_loop(), Chat.encode

    def slow(self: Chat, text: str, **options: Any) -> list[int]:
        if len(text) > 30_000:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(60)
        return encode(self, text, **options)

    monkeypatch.setattr(Chat, "encode", slow)
    body = {"model": "policy", "prompt": "word " * 7_000}
    large = asyncio.create_task(client.post(f"{engine.base_url}/completions", json=body))
    try:
        await asyncio.wait_for(begun.wait(), 60)
        assert (await ask(engine, HI, max_tokens=2))["choices"]
        assert (await client.get(engine.base_url.removesuffix("/v1") + "/health")).json() == {"status": "ok"}
        assert not large.done()
    finally:
        go_on.set()
    assert (await large).json()["error"]["code"] == "context_length_exceeded"


async def test_headers_and_methods_that_make_no_sense(engine: Engine, client: httpx.AsyncClient) -> None:
    url = f"{engine.base_url}/chat/completions"
    assert (await client.get(url)).status_code == 405
    assert (await client.post(engine.base_url + "/nowhere", json=chat())).status_code == 404
    response = await client.post(url, json=chat(), headers={"x-agentlightning-rollout": "r" * 300})
    assert (response.status_code, "rollout" in response.json()["error"]["message"]) == (400, True)
    assert (await client.post(url, json=chat(), headers={"content-type": "text/plain"})).status_code == 200
    with contextlib.suppress(httpx.ReadError, httpx.WriteError):  # it is hung up on, maybe before it reads why
        assert (await client.post(url, json=chat(), headers={"cookie": "c" * 1_000_000})).status_code == 400
    assert (await client.post(url, data={"model": "policy"})).status_code == 400


@pytest.mark.parametrize("part", [b"POST /v1/chat/completions HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b""])
async def test_a_client_that_leaves_before_it_has_sent_all_is_forgotten(
    engine: Engine, ask: Ask, part: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, _, address = engine.base_url.removesuffix("/v1").partition("//")
    host, _, port = address.partition(":")
    for sent in (part, b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{"):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await ask(engine, HI, max_tokens=2))["choices"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_conversations_are_forgotten_oldest_first(
    engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "KEPT_TOKENS", 400)
    first = [await ask(engine, HI, rollout=name, max_tokens=2) for name in ("old", "new")]
    for name, answer in zip(("new", "old"), reversed(first), strict=True):
        await ask(engine, [*HI, answer["choices"][0]["message"], *HI], rollout=name, max_tokens=2)
    assert (engine.gateway.stats.continued, engine.gateway.stats.rendered) == (1, 3)
