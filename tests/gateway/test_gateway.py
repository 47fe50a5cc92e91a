"""The engine as its users see it: the OpenAI API, errors, seeds, streams, stopping."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest

from agentlightning.errors import PolicyError
from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.sampler import scheduler

Ask = Callable[..., Awaitable[Any]]
Write = Callable[[list[int]], None]
HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "policy", "messages": HI, **fields}


async def stream(client: httpx.AsyncClient, engine: Engine, **fields: Any) -> list[Any]:
    sent = body(stream=True, return_token_ids=True, logprobs=True, **fields)
    response = await client.post(f"{engine.base_url}/chat/completions", json=sent)
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


async def test_an_answer_has_what_training_needs(engine: Engine, ask: Ask, policy: PolicyModel) -> None:
    answer = await ask(engine, HI, max_tokens=8, top_logprobs=3, seed=1)
    choice = answer["choices"][0]
    assert answer["policy"] == "policy"
    assert answer["policy_version"] == 0
    assert answer["usage"]["prompt_tokens"] == len(answer["prompt_token_ids"])
    assert answer["usage"]["completion_tokens"] == len(choice["token_ids"]) == len(choice["logprobs"]["content"])
    assert choice["message"]["content"] == policy.tokenizer.decode(choice["token_ids"], skip_special_tokens=True)
    for token in choice["logprobs"]["content"]:
        tops = [top["logprob"] for top in token["top_logprobs"]]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert token["logprob"] <= tops[0] + 1e-6


async def test_the_openai_client_understands_it(engine: Engine) -> None:
    async with openai.AsyncOpenAI(base_url=engine.base_url, api_key="none") as client:
        answer = await client.chat.completions.create(model="policy", messages=HI, tools=TOOLS, seed=3)  # type: ignore
        chunks = await client.chat.completions.create(model="policy", messages=HI, tools=TOOLS, seed=3, stream=True)  # type: ignore
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        models = [model.id async for model in client.models.list()]
    assert text == answer.choices[0].message.content
    assert models == ["policy"]


async def test_a_seed_gives_the_same_tokens_whatever_runs_beside(engine: Engine, ask: Ask) -> None:
    alone = await ask(engine, HI, seed=11)
    beside = [ask(engine, [{"role": "user", "content": f"say {n}"}], seed=n) for n in range(7)]
    crowded, *_ = await asyncio.gather(ask(engine, HI, seed=11), *beside)
    other = await ask(engine, HI, seed=12)
    assert crowded["choices"][0]["token_ids"] == alone["choices"][0]["token_ids"]
    assert other["choices"][0]["token_ids"] != alone["choices"][0]["token_ids"]


async def test_without_a_seed_rollouts_differ_and_a_new_engine_repeats_them(policy: PolicyModel, ask: Ask) -> None:
    async def sample(seed: int) -> list[list[int]]:
        async with Engine(policy, EngineConfig(seed=seed)) as engine:
            calls = [("a", 0), ("a", 1), ("b", 0)]
            answers = [await ask(engine, HI, rollout=rollout, max_tokens=12) for rollout, _ in calls]
        return [answer["choices"][0]["token_ids"] for answer in answers]

    first = await sample(0)
    assert len(set(map(tuple, first))) == 3
    assert await sample(0) == first
    assert await sample(1) != first


async def test_n_choices_differ_and_come_from_one_prompt(engine: Engine, ask: Ask) -> None:
    answer = await ask(engine, HI, n=4, max_tokens=8)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({tuple(choice["token_ids"]) for choice in answer["choices"]}) == 4
    assert engine.sampler.stats.computed_tokens == len(answer["prompt_token_ids"]) - 1


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine: Engine, ask: Ask) -> None:
    whole = await ask(engine, HI, temperature=0, max_tokens=16)
    text = whole["choices"][0]["message"]["content"]
    stop = text[5:7]
    answer = (await ask(engine, HI, temperature=0, max_tokens=16, stop=[stop, "never there"]))["choices"][0]
    assert answer["message"]["content"] == text[: text.index(stop)]
    assert answer["finish_reason"] == "stop"
    assert answer["token_ids"] == whole["choices"][0]["token_ids"][: len(answer["token_ids"])]
    assert len(answer["token_ids"]) < len(whole["choices"][0]["token_ids"])


async def test_the_end_token_is_an_action_but_not_text(
    engine: Engine, ask: Ask, policy: PolicyModel, write: Write
) -> None:
    end = policy.tokenizer.eos_token_id
    write([*policy.tokenizer.encode("71"), end])
    choice = (await ask(engine, HI))["choices"][0]
    assert choice["token_ids"][-1] == end
    assert choice["message"]["content"] == "71"
    assert choice["finish_reason"] == "stop"
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])


CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "3 + 4"}}\n</tool_call>'


@pytest.mark.parametrize("written", [CALL, CALL.removesuffix("\n</tool_call>"), CALL[12:-13]])
@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_calls_are_read_out_of_the_text(
    engine: Engine,
    policy: PolicyModel,
    write: Write,
    client: httpx.AsyncClient,
    ask: Ask,
    written: str,
    streamed: bool,
) -> None:
    write([*policy.tokenizer.encode(written), policy.tokenizer.eos_token_id])
    if streamed:
        chunks = await stream(client, engine, tools=TOOLS, max_tokens=99)
        message: dict[str, Any] = {"content": ""}
        for chunk in chunks:
            delta = chunk["choices"][0]["delta"]
            message["content"] += delta.get("content") or ""
            message.setdefault("tool_calls", []).extend(delta.get("tool_calls", []))
        finish = chunks[-1]["choices"][0]["finish_reason"]
    else:
        choice = (await ask(engine, HI, tools=TOOLS, max_tokens=99))["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
    assert not message["content"]
    function = message["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("calculator", {"expression": "3 + 4"})
    assert finish == "tool_calls"


async def test_a_stream_says_the_same_as_a_whole_answer(engine: Engine, client: httpx.AsyncClient, ask: Ask) -> None:
    options = {"seed": 5, "max_tokens": 16, "n": 2, "stop": ["e"]}
    whole = await ask(engine, HI, **options)
    chunks = await stream(client, engine, stream_options={"include_usage": True}, **options)
    assert chunks[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert chunks[-1]["usage"] == whole["usage"]
    for index, choice in enumerate(whole["choices"]):
        own = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
        assert "".join(each["delta"].get("content", "") for each in own) == choice["message"]["content"]
        assert [id for each in own for id in each.get("token_ids", [])] == choice["token_ids"]
        logprobs = [token["logprob"] for each in own for token in (each["logprobs"] or {}).get("content", [])]
        assert logprobs == pytest.approx([token["logprob"] for token in choice["logprobs"]["content"]], abs=1e-5)
        assert own[-1]["finish_reason"] == choice["finish_reason"]


BAD_REQUESTS: list[tuple[dict[str, Any], int, str]] = [
    ({"messages": []}, 400, "messages"),
    ({"messages": "hi"}, 400, "messages"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content"),
    ({"model": "gpt-4o"}, 404, "model"),
    ({"temperature": -1}, 400, "temperature"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"n": 0}, 400, "n"),
    ({"top_logprobs": 3}, 400, "top_logprobs"),
    ({"top_logprobs": 21, "logprobs": True}, 400, "top_logprobs"),
    ({"tool_choice": "required", "tools": TOOLS}, 400, "tool_choice"),
    ({"tools": [{"type": "function"}]}, 400, "tools[0]"),
    ({"response_format": {"type": "grammar"}}, 400, "response_format"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
]


@pytest.mark.parametrize(("fields", "status", "param"), BAD_REQUESTS)
async def test_a_bad_request_is_told_what_is_wrong(
    engine: Engine, client: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str
) -> None:
    response = await client.post(f"{engine.base_url}/chat/completions", json=body(**fields))
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
    assert param.split("[")[0] in response.json()["error"]["message"]


async def test_what_is_no_json_or_no_route_is_told_so(engine: Engine, client: httpx.AsyncClient) -> None:
    response = await client.post(f"{engine.base_url}/chat/completions", content=b"{nonsense")
    assert (response.status_code, "no JSON" in response.json()["error"]["message"]) == (400, True)
    response = await client.get(f"{engine.base_url}/embeddings")
    assert (response.status_code, "does not serve" in response.json()["error"]["message"]) == (404, True)


async def test_a_context_too_long_is_an_error_by_code(engine: Engine, client: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": "apples " * 2000}]
    response = await client.post(f"{engine.base_url}/chat/completions", json=body(messages=messages))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


async def test_an_answer_ends_where_the_context_does(policy: PolicyModel, ask: Ask) -> None:
    async with Engine(policy, EngineConfig(max_context=24)) as engine:
        answer = await ask(engine, HI, temperature=0, max_tokens=100)
    assert len(answer["prompt_token_ids"]) + len(answer["choices"][0]["token_ids"]) == 24
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_the_rollout_may_be_in_the_path(engine: Engine, client: httpx.AsyncClient) -> None:
    url = engine.base_url.removesuffix("/v1") + "/rollouts/r1/v1/chat/completions"
    for _ in range(2):
        assert (await client.post(url, json=body())).status_code == 200
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (1, 1)


async def test_health(engine: Engine, client: httpx.AsyncClient) -> None:
    assert (await client.get(engine.base_url.removesuffix("/v1") + "/health")).json() == {"status": "ok"}


async def test_a_port_that_is_taken_is_named(policy: PolicyModel) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PolicyError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Engine(policy, EngineConfig(port=port)).start()


async def test_the_published_resource_leads_to_the_engine(engine: Engine) -> None:
    resource = engine.resource("solver", agents=["solver"], temperature=1.0)
    assert (resource.name, resource.agents, resource.version) == ("solver", ("solver",), 0)
    assert (resource.base_url, resource.model, resource.sampling) == (engine.base_url, "policy", {"temperature": 1.0})


class Gate:
    """Holds the scheduler before its next draw, until opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self._open = threading.Event()
        loop = asyncio.get_running_loop()
        draw = scheduler.draw

        def held(*arguments: Any) -> Any:
            loop.call_soon_threadsafe(self.reached.set)
            self._open.wait()
            return draw(*arguments)

        monkeypatch.setattr(scheduler, "draw", held)

    def open(self) -> None:
        self._open.set()


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_nobody_waits_for_is_dropped(
    engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    gate = Gate(monkeypatch)
    cancel = scheduler.Scheduler.cancel
    loop, cancelled = asyncio.get_running_loop(), asyncio.Event()

    def noted(*arguments: Any) -> None:
        cancel(*arguments)
        loop.call_soon_threadsafe(cancelled.set)

    monkeypatch.setattr(scheduler.Scheduler, "cancel", noted)
    async with httpx.AsyncClient(timeout=60) as client:
        url = f"{engine.base_url}/chat/completions"
        call = asyncio.create_task(client.post(url, json=body(max_tokens=1000, temperature=0, stream=streamed)))
        await gate.reached.wait()
        call.cancel()
    await cancelled.wait()
    gate.open()
    await ask(engine, HI, max_tokens=1)
    assert engine.sampler.stats.cancelled == 1
    assert engine.sampler.stats.generated_tokens < 10


async def test_a_failed_step_fails_its_requests_and_the_engine_goes_on(
    engine: Engine, client: httpx.AsyncClient, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory, say")

    before = await ask(engine, HI, temperature=0)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "draw", broken)
        calls = [client.post(f"{engine.base_url}/chat/completions", json=body()) for _ in range(3)]
        for response in await asyncio.gather(*calls):
            assert response.status_code == 500
            assert "out of memory, say" in response.json()["error"]["message"]
    assert (await ask(engine, HI, temperature=0))["choices"] == before["choices"]


async def test_what_is_not_answered_at_the_end_gets_503(
    policy: PolicyModel, monkeypatch: pytest.MonkeyPatch, client: httpx.AsyncClient
) -> None:
    gate = Gate(monkeypatch)
    engine = Engine(policy)
    await engine.start()
    call = asyncio.create_task(client.post(f"{engine.base_url}/chat/completions", json=body(max_tokens=1000)))
    await gate.reached.wait()
    stop = asyncio.create_task(engine.stop())
    closing = engine.sampler._scheduler
    assert closing is not None

    def wait_until_closing() -> None:
        with closing._ready:
            closing._ready.wait_for(lambda: closing._closing)

    await asyncio.to_thread(wait_until_closing)
    gate.open()
    await stop
    assert (await call).status_code == 503
    assert (await call).json()["error"]["code"] == "engine_unavailable"
    await engine.stop()
