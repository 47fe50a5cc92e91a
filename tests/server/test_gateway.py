"""The gateway: calls pass to an upstream as they are, and those of a rollout become its spans."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import openai
import pytest
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import Raw, Received, error, stream, text, tool_call
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.model_routing import Router
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, ModelChoice, ModelRouter, Policy, Prompt, Span
from agentlightning_openai.adapter import OpenAIAdapter
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

HTTP = httpx.Client(timeout=30)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", ASKED),
    "responses": ("/responses", {"model": "m", "input": "Hi", "instructions": "Be kind."}),
}


class Rollouts:
    """Rollouts of the run ``mine`` in a server's store, which run."""

    def __init__(self, server: LightningServer) -> None:
        self.url = server.url
        self.store = RemoteStore(server.url)

    async def run(self, id: str, *resources: AnyResource) -> str:
        """One with these resources; its base URL."""
        await self.store.open_run(a_run("mine"))
        for resource in resources:
            await self.store.put_resource("mine", resource)
        rollout = a_rollout(id, run_id="mine")
        rollout.resources = {resource.name: resource.digest for resource in resources}
        await self.store.enqueue([rollout])
        await self.store.lease("w", ids=[id], seconds=FOR_EVER)
        return f"{self.url}/rollouts/{id}/v1"

    async def spans(self, id: str) -> list[Span]:
        return await self.store.spans(id)


@pytest.fixture
async def rollouts(gateway: LightningServer) -> AsyncIterator[Rollouts]:
    made = Rollouts(gateway)
    yield made
    await made.store.close()


def post(url: str, body: Any = None, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTP.post(f"{url}/chat/completions", json=ASKED if body is None else body, headers=sent, timeout=20)


def as_json(response: httpx.Response) -> Any:
    """What a client reads: the answer, or the events of a stream."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return response.json()
    data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_gets_what_the_upstream_answers(
    rollouts: Rollouts, upstream: StubServer, way: str, streamed: bool
) -> None:
    path, body = WAYS[way]
    answers = []
    for base in (upstream.base_url, f"{rollouts.url}/v1", await rollouts.run("a")):
        upstream.clear()
        upstream.reply(text("Good day, ünïcode!"))
        answers.append(HTTP.post(base + path, json={**body, "stream": streamed}))
    direct, passed, recorded = answers
    assert passed.content == direct.content
    assert as_json(recorded) == as_json(direct)
    assert recorded.headers["content-type"] == passed.headers["content-type"] == direct.headers["content-type"]


async def test_a_stream_whose_tokens_were_asked_for_is_passed_on_byte_for_byte(
    rollouts: Rollouts, upstream: StubServer
) -> None:
    asked = {**ASKED, "stream": True, "logprobs": True, "return_token_ids": True}
    asked["stream_options"] = {"include_usage": True}
    answers = []
    for base in (upstream.base_url, await rollouts.run("a")):
        upstream.clear()
        answers.append(post(base, asked).content)
    assert answers[0] == answers[1]
    [span] = await rollouts.spans("a")
    assert span.generation is not None
    assert span.generation.provenance == "exact"


@pytest.mark.parametrize("reply", [text("Good day."), tool_call("add", a=1, content="Let me see."), text("")])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_a_span_is_what_the_openai_adapter_records_of_the_same_call(
    rollouts: Rollouts, upstream: StubServer, way: str, streamed: bool, reply: Any
) -> None:
    policy = Policy(name="p", version=3, model="tiny", base_url=upstream.base_url, sampling={"temperature": 0.7})
    prompt = Prompt(name="s", template="You are {who}.", variables={"who": "Ann"})
    upstream.reply(reply)
    _call(await rollouts.run("a", policy, prompt), way, streamed)
    [passed] = await rollouts.spans("a")
    sent = upstream.requests[-1].json
    upstream.clear()
    upstream.reply(reply)
    recorded: list[Span] = []
    adapter = OpenAIAdapter()
    adapter.install()
    try:
        with recording(Recorder("a", 1, recorded.extend, [policy, prompt], seed=sent["seed"])):
            _call(upstream.base_url, way, streamed)
    finally:
        adapter.uninstall()
    assert {**upstream.requests[-1].json, "seed": 0} == {**sent, "seed": 0}
    assert _told(passed) == _told(recorded[0])
    assert passed.generation is not None
    assert (passed.generation.policy, passed.generation.policy_version) == ("p", 3)


def _call(base_url: str, way: str, streamed: bool) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    if way == "chat":
        answer: Any = client.chat.completions.create(**ASKED, stream=streamed)
    else:
        answer = client.responses.create(**WAYS[way][1], stream=streamed)
    if streamed:
        list(answer)


def _told(span: Span) -> Any:
    """A span but for its id and times."""
    told = msgspec.to_builtins(span, enc_hook=lambda array: array.tolist())
    for name in ("id", "started_at", "ended_at"):
        del told[name]
    for name in ("agentlightning.time_to_first_token", "gen_ai.request.seed"):
        told["attributes"].pop(name, None)
    return told


async def test_calls_of_an_attempt_that_is_over_are_refused(rollouts: Rollouts, upstream: StubServer) -> None:
    await rollouts.run("a")
    attempts = f"{rollouts.url}/rollouts/a/attempts"
    assert [post(f"{attempts}/{number}/v1").status_code for number in (1, 0, 2)] == [200, 409, 409]
    assert "rollout a is at attempt 1" in post(f"{attempts}/2/v1").json()["error"]["message"]
    assert len(await rollouts.spans("a")) == len(upstream.requests) == 1
    assert HTTP.get(f"{attempts}/1/v1/models").status_code == 200


async def test_a_text_completion_is_recorded(rollouts: Rollouts, upstream: StubServer) -> None:
    choice = {
        "index": 0,
        "text": " world",
        "finish_reason": "stop",
        "token_ids": [7],
        "prompt_token_ids": [1, 2],
        "logprobs": {"tokens": ["t"], "token_logprobs": [-0.5], "text_offset": [0], "top_logprobs": None},
    }
    body = {"id": "cmpl-1", "model": "m", "choices": [choice], "logprobs_mode": "tempered"}
    upstream.reply(Raw(200, json.dumps(body).encode()))
    base = await rollouts.run("a")
    answer = HTTP.post(f"{base}/completions", json={"model": "m", "prompt": "Hello"})
    assert answer.json()["choices"] == [{"index": 0, "text": " world", "finish_reason": "stop", "logprobs": None}]
    [span] = await rollouts.spans("a")
    assert span.generation is not None
    assert span.generation.exact_tokens is not None
    assert [array.tolist() for array in span.generation.exact_tokens] == [[1, 2], [7], [-0.5]]


async def test_a_header_names_the_rollout_on_the_plain_paths(rollouts: Rollouts) -> None:
    await rollouts.run("a")
    assert post(f"{rollouts.url}/v1").status_code == 200
    assert await rollouts.spans("a") == []
    assert post(f"{rollouts.url}/v1", x_agentlightning_rollout="a", x_agentlightning_agent="solver").status_code == 200
    [span] = await rollouts.spans("a")
    assert (span.agent, span.index, span.attempt) == ("solver", 0, 1)


async def test_the_agents_key_goes_to_no_upstream(
    serve: Callable[..., LightningServer], upstream: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "the-key-of-the-provider")
    server = serve(upstreams=[upstream.base_url], upstream_key_variable="PROVIDER_KEY")
    post(f"{server.url}/v1", authorization="Bearer the-key-of-the-agent", cookie="secret=1", x_api_key="k")
    headers = dict(upstream.requests[-1].headers)
    assert headers["Authorization"] == "Bearer the-key-of-the-provider"
    assert "the-key-of-the-agent" not in str(headers)
    assert not {"cookie", "x-api-key"} & {name.lower() for name in headers}


async def test_a_policy_gets_its_calls_with_its_sampling_and_a_key_of_its_own(
    rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICY_KEY", "the-key-of-the-policy")
    with StubServer() as engine:
        policy = Policy(
            name="p", model="tiny", base_url=engine.base_url, api_key_env="POLICY_KEY", sampling={"top_p": 0.5}
        )
        assert post(await rollouts.run("a", policy)).status_code == 200
        [received] = engine.requests
    assert received.header("authorization") == "Bearer the-key-of-the-policy"
    assert received.header("x-agentlightning-rollout") == "a"
    assert (received.json["model"], received.json["top_p"], received.json["return_token_ids"]) == ("tiny", 0.5, True)


async def test_a_policy_of_one_agent_gets_no_call_that_does_not_say_who_makes_it(
    rollouts: Rollouts, upstream: StubServer
) -> None:
    base = await rollouts.run("a", Policy(name="p", agents=("solver",), model="tiny", base_url=upstream.base_url))
    refused = post(base)
    assert refused.status_code == 400
    assert "say which agent calls in the header x-agentlightning-agent" in refused.json()["error"]["message"]
    assert post(base, x_agentlightning_agent="solver").status_code == 200
    assert post(base, x_agentlightning_agent="critic").status_code == 200
    assert [received.json["model"] for received in upstream.requests] == ["tiny", "m"]


async def test_a_model_is_chosen_and_a_prompt_swapped(rollouts: Rollouts, upstream: StubServer) -> None:
    chosen = ModelChoice(name="c", model="large")
    prompt = Prompt(name="p", agents=("solver",), template="New.", replaces="Old.")
    base = await rollouts.run("a", chosen, prompt)
    asked = {"model": "m", "messages": [{"role": "system", "content": "Old."}, *ASKED["messages"]]}
    post(base, asked)
    assert upstream.requests[-1].json["model"] == "large"
    assert upstream.requests[-1].json["messages"][0] == {"role": "system", "content": "New."}


class ByLength(Router):
    """Long texts to the second model."""

    def choose(self, text: str) -> int:
        return int(len(text) > 10)


async def test_a_router_chooses_a_model_for_each_rollout(rollouts: Rollouts, upstream: StubServer) -> None:
    choices = (ModelChoice(name="short", model="small"), ModelChoice(name="long", model="large"))
    router = ModelRouter(name="model", choices=choices, router=f"{__name__}:ByLength")
    for id, question in (("a", "Hi"), ("b", "a much longer question")):
        base = await rollouts.run(id, router)
        post(base, {"model": "m", "messages": [{"role": "user", "content": question}]})
    assert [received.json["model"] for received in upstream.requests] == ["small", "large"]
    (span,) = await rollouts.spans("b")
    assert span.attributes[semconv.MODEL_CHOICE] == "long"


async def test_an_upstream_that_refuses_to_be_asked_for_tokens_is_asked_without(
    rollouts: Rollouts, upstream: StubServer
) -> None:
    def strict(request: Received) -> Any:
        unknown = "return_token_ids" in request.json
        return error(400, "Unknown parameter: return_token_ids") if unknown else text("Hello.", exact=False)

    upstream.reply(strict)
    base = await rollouts.run("a")
    for _ in range(2):
        assert post(base).status_code == 200
    assert ["return_token_ids" in received.json for received in upstream.requests] == [True, False, False]
    spans = await rollouts.spans("a")
    assert [span.failure for span in spans] == [None, None]
    assert [span.generation.provenance for span in spans if span.generation is not None] == ["text", "text"]


async def test_an_error_of_the_upstream_is_the_clients_and_a_typed_failure(
    rollouts: Rollouts, upstream: StubServer
) -> None:
    upstream.reply(error(404, "no such model", retry_after="7"), error(400, "maximum context length"))
    upstream.reply(error(400, "maximum context length"))
    base = await rollouts.run("a")
    missing, too_long = post(base), post(base)
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "no such model")
    assert missing.headers["retry-after"] == "7"
    assert too_long.status_code == 400
    failures = [span.failure for span in await rollouts.spans("a")]
    assert [(it.type, it.fault) for it in failures if it is not None] == [
        ("not_found", "infrastructure"),
        ("context_too_long", "agent"),
    ]


async def test_a_span_is_durable_before_the_answer_has_ended(rollouts: Rollouts, upstream: StubServer) -> None:
    base = await rollouts.run("a")
    with HTTP.stream("POST", f"{base}/chat/completions", json={**ASKED, "stream": True}) as response:
        for line in response.iter_lines():
            there = len(await rollouts.spans("a"))
            if line == "data: [DONE]":
                assert there == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_ends_the_upstreams_work_and_the_span_says_so(
    rollouts: Rollouts, upstream: StubServer, streamed: bool
) -> None:
    held = threading.Event()
    upstream.reply(text("Hello.", hold=held))
    base = await rollouts.run("a")
    with pytest.raises(httpx.ReadTimeout):
        HTTP.post(f"{base}/chat/completions", json={**ASKED, "stream": streamed}, timeout=0.3)
    async with asyncio.timeout(10):
        while not (spans := await rollouts.spans("a")):
            await asyncio.sleep(0.02)
    held.set()
    assert spans[0].attributes["agentlightning.client_left"] is True
    assert spans[0].generation is not None
    if not streamed:
        assert spans[0].failure is not None
        assert spans[0].failure.type == "cancelled"
    assert HTTP.get(f"{rollouts.url}/v1/gateway").json()["in_flight"] == 0


async def test_a_stream_that_breaks_off_is_told_to_the_client(rollouts: Rollouts, upstream: StubServer) -> None:
    upstream.reply(text("Hello.", breaks_after=3))
    told = as_json(post(await rollouts.run("a"), {**ASKED, "stream": True}))
    assert told[-1]["error"]["type"] == "server_error"
    [span] = await rollouts.spans("a")
    assert span.failure is not None
    assert (span.failure.type, span.failure.fault) == ("engine_unavailable", "infrastructure")
    assert span.generation is not None
    assert span.generation.response == {"role": "assistant", "content": "Hell"}


async def test_an_error_in_a_stream_is_a_failure(rollouts: Rollouts, upstream: StubServer) -> None:
    upstream.reply(text("Hello.", error_after=2))
    post(await rollouts.run("a"), {**ASKED, "stream": True})
    [span] = await rollouts.spans("a")
    assert span.failure is not None
    assert span.failure.fault == "infrastructure"


async def test_what_an_upstream_garbles_reaches_the_client_as_it_is(rollouts: Rollouts, upstream: StubServer) -> None:
    base = await rollouts.run("a")
    upstream.reply(Raw(200, b'{"choices": 7'), Raw(200, b"[1]"), stream("{not json", '{"choices": []}'))
    assert post(base).content == b'{"choices": 7'
    assert post(base).content == b"[1]"
    assert (
        post(base, {**ASKED, "stream": True}).content == b'data: {not json\n\ndata: {"choices": []}\n\ndata: [DONE]\n\n'
    )
    failures = [span.failure for span in await rollouts.spans("a")]
    assert [it.type for it in failures if it is not None] == ["invalid_response"] * 3


async def test_calls_of_another_attempt_are_that_ones(rollouts: Rollouts) -> None:
    base = await rollouts.run("a")
    post(base)
    rollout = await rollouts.store.rollout("a")
    assert rollout is not None
    rollout.status = "queued"
    await rollouts.store.finish(rollout)
    refused = post(base)
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "invalid_request_error")
    await rollouts.store.lease("w", ids=["a"], seconds=FOR_EVER)
    post(base)
    assert [(span.attempt, span.index) for span in await rollouts.spans("a")] == [(2, 0)]


async def test_models_are_those_of_the_upstream_or_of_the_rollouts_policy(
    rollouts: Rollouts, upstream: StubServer
) -> None:
    with StubServer() as engine:
        base = await rollouts.run("a", Policy(name="p", model="tiny", base_url=engine.base_url))
        assert HTTP.get(f"{base}/models").json() == {"object": "list", "data": []}
        assert [received.path for received in engine.requests] == ["/v1/models"]
    assert HTTP.get(f"{rollouts.url}/v1/models").status_code == 200
    assert [received.path for received in upstream.requests] == ["/v1/models"]


async def test_a_server_that_is_its_own_upstream_says_so(rollouts: Rollouts) -> None:
    refused = post(await rollouts.run("a", Policy(name="p", model="tiny", base_url=f"{rollouts.url}/v1")))
    assert refused.status_code == 508
    assert "an upstream is its own address" in refused.json()["error"]["message"]
