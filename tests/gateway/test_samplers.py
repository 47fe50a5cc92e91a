"""The seam between the gateway and what samples: any sampler is served, none is believed more than it states."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import openai
import pytest
from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler

import agentlightning as agl
from agentlightning.config import NoConfig
from agentlightning.records import Policy
from agentlightning.sampler import ModelInfo, SampledToken, SamplerUnavailableError, SamplingParams
from agentlightning_gateway import Gateway
from agentlightning_gateway.openai_sampler import OpenAISampler
from agentlightning_policy.engine import Engine

HI = [{"role": "user", "content": "hi"}]
EXACT: dict[str, Any] = {"logprobs": True, "extra_body": {"return_token_ids": True}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


async def drained(stream: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in stream]


def client_of(gateway: Gateway | Engine) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none", max_retries=0)


# A sampler of a stranger


async def test_a_fake_sampler_serves_an_untouched_client(tokenizer: Any) -> None:
    sampler = FakeSampler(tokenizer, "The answer is 71.")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        chat = await client.chat.completions.create(model="fake", messages=HI, **EXACT)
        stream = await client.chat.completions.create(model="fake", messages=HI, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        response = await client.responses.create(model="fake", input="hi")
    assert chat.choices[0].message.content == streamed == response.output_text == "The answer is 71."
    assert chat.choices[0].token_ids == sampler.ids
    assert [token.logprob for token in chat.choices[0].logprobs.content] == [-0.5] * len(sampler.ids)
    assert (chat.policy_version, chat.logprobs_mode) == (7, "tempered")


def test_the_gateway_serves_without_torch(tmp_path: Path) -> None:
    """In a process where no torch can be imported."""
    script = f"""
import asyncio, sys
sys.modules["torch"] = None
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
import openai
from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler
from agentlightning_gateway import Gateway

async def main():
    tokenizer = make_tokenizer()
    async with Gateway(FakeSampler(tokenizer, "It works."), tokenizer=tokenizer) as gateway:
        async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client:
            answer = await client.chat.completions.create(model="fake", messages={HI!r})
            print(answer.choices[0].message.content)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=110)
    assert (done.stdout, done.returncode) == ("It works.\n", 0), done.stderr


class Publishing(agl.Algorithm):
    """Publishes where the policy is served, and collects every task twice."""

    Config = NoConfig
    base_url = ""

    async def run(self, run: Any) -> None:
        await run.publish(Policy(name="policy", version=1, model="fake", base_url=self.base_url))
        self.groups = [group async for group in run.collect(run.tasks, group_size=2, step=1)]


async def solve(question: str) -> str | None:
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1:9", api_key="none") as client:
        answer = await client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": question}])
        return answer.choices[0].message.content


async def test_the_ordinary_trainer_makes_training_rows_of_what_a_fake_sampler_writes(
    tokenizer: Any, tmp_path: Path
) -> None:
    sampler = FakeSampler(tokenizer, "71")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway:
        algorithm = Publishing(Publishing.Config())
        algorithm.base_url = gateway.base_url
        tasks = [{"id": f"sum{n}", "input": f"What is {n} + {71 - n}?", "expected": "71"} for n in range(2)]
        trainer = agl.Trainer(
            solve, tasks[:1], lambda rollout, task: float(rollout.output == task.expected), algorithm,
            held_out=tasks[1:],
            store=f"sqlite:///{tmp_path / 'store.db'}", directory=tmp_path / "runs", name="test",
        )  # fmt: skip
        await asyncio.to_thread(trainer.fit)
    (group,) = algorithm.groups
    assert [each.rollout.outcome for each in group.rollouts] == [1.0, 1.0]
    for row in (row for each in group.rollouts for row in each.rows):
        (transition,) = row.transitions
        assert row.token_ids[transition.start : transition.end].tolist() == sampler.ids
        assert row.logprobs[transition.start : transition.end].tolist() == [-0.5] * len(sampler.ids)
        assert (row.policy, row.policy_version) == ("policy", 7)


# What a sampler states of its log-probabilities


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_raw_logprobs_are_those_of_temperature_one(tokenizer: Any, temperature: float) -> None:
    sampler = FakeSampler(tokenizer, "yes", logprobs="raw")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        answer = await client.chat.completions.create(model="fake", messages=HI, temperature=temperature, **EXACT)
    assert answer.logprobs_mode == "tempered"


async def test_raw_logprobs_at_another_temperature_are_refused_by_name(tokenizer: Any) -> None:
    sampler = FakeSampler(tokenizer, "yes", logprobs="raw")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        with pytest.raises(openai.InternalServerError, match="logprobs: the sampler of fake") as caught:
            await client.chat.completions.create(model="fake", messages=HI, temperature=0.7, **EXACT)
        assert (caught.value.status_code, caught.value.param) == (501, "logprobs")
        plain = await client.chat.completions.create(model="fake", messages=HI, temperature=0.7)
    assert plain.choices[0].message.content == "yes"
    assert not hasattr(plain, "logprobs_mode")


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}])
async def test_processed_logprobs_of_what_was_cut_are_refused_by_name(tokenizer: Any, cut: dict[str, Any]) -> None:
    sampler = FakeSampler(tokenizer, "yes", logprobs="processed")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        whole = {**EXACT, "model": "fake", "messages": HI, "temperature": 0.7}
        answer = await client.chat.completions.create(**whole)
        assert answer.logprobs_mode == "tempered"
        extra = {**EXACT.get("extra_body", {}), **cut}
        with pytest.raises(openai.InternalServerError, match="what top_k, top_p and min_p leave") as caught:
            await client.chat.completions.create(**{**whole, "extra_body": extra})
        assert (caught.value.status_code, caught.value.param) == (501, "logprobs")


# Ends, failures, and clients that leave


async def test_an_answer_ends_where_the_request_says_and_the_sampler_is_told(tokenizer: Any) -> None:
    sampler = FakeSampler(tokenizer, "one two three four")
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        stopped = await client.chat.completions.create(model="fake", messages=HI, stop="three")
        cut = await client.chat.completions.create(
            model="fake", messages=HI, max_tokens=2, extra_body=EXACT["extra_body"]
        )
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one two ", "stop")
    assert (cut.choices[0].token_ids, cut.choices[0].finish_reason) == (sampler.ids[:2], "length")
    assert sampler.closed == 2


class Failing(FakeSampler):
    """Fails: at once, or after two tokens as soon as ``read`` is set."""

    error: Exception = SamplerUnavailableError("come back later")
    read: threading.Event | None = None

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        if self.read is not None:
            for id in self.ids[:2]:
                yield SampledToken(id, -0.5)
            await asyncio.to_thread(self.read.wait)
        raise self.error


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(SamplerUnavailableError("come back later"), 503, "engine_unavailable"), (RuntimeError("no memory"), 500, None)],
)
async def test_a_failure_before_the_first_token_has_its_status(
    tokenizer: Any, error: Exception, status: int, code: str | None, stream: bool
) -> None:
    sampler = Failing(tokenizer, "never")
    sampler.error = error
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        with pytest.raises(openai.InternalServerError, match=str(error)) as caught:
            await client.chat.completions.create(model="fake", messages=HI, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)


async def test_a_failure_in_a_stream_is_its_last_event(tokenizer: Any) -> None:
    sampler = Failing(tokenizer, "Half of an answer")
    sampler.read = threading.Event()
    async with Gateway(sampler, tokenizer=tokenizer) as gateway, client_of(gateway) as client:
        stream = await client.chat.completions.create(model="fake", messages=HI, stream=True)
        await anext(aiter(stream))
        sampler.read.set()
        with pytest.raises(openai.APIError, match="come back later"):
            await drained(stream)


class Waiting(FakeSampler):
    """Writes one token and waits until it is closed."""

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        try:
            yield SampledToken(self.ids[0], -0.5)
            await asyncio.Event().wait()
        finally:
            self.loop.call_soon_threadsafe(self.left.set)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_iterator_is_closed_when_the_client_leaves(tokenizer: Any, stream: bool) -> None:
    sampler = Waiting(tokenizer, "slow")
    sampler.loop, sampler.left = asyncio.get_running_loop(), asyncio.Event()
    async with Gateway(sampler, tokenizer=tokenizer) as gateway:
        async with httpx.AsyncClient(timeout=60) as client:
            body = {"model": "fake", "messages": HI, "stream": stream}
            call = asyncio.create_task(client.post(f"{gateway.base_url}/chat/completions", json=body))
            while not call.done() and gateway.stats.requests == 0:
                await asyncio.sleep(0.01)
            call.cancel()
        await asyncio.wait_for(sampler.left.wait(), 60)


# A sampler behind another endpoint


@pytest.fixture
async def relay(engine: Engine) -> AsyncIterator[Gateway]:
    """A gateway before the engine's own, over its API."""
    sampler = OpenAISampler(engine.base_url, engine.sampler.info)
    async with Gateway(sampler, engine.config, tokenizer=engine.policy.tokenizer) as gateway:
        yield gateway


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0.7, "seed": 5, "n": 3, "top_p": 0.9, "top_k": 40, "min_p": 0.01},
        {"temperature": 0.0, "top_logprobs": 3},
        {"temperature": 1.0, "seed": 4, "stop": "e", "max_tokens": 200},
        {"temperature": 1.0},
    ],
    ids=["seeded", "choices", "alternatives", "stop", "the rollout's seed"],
)
async def test_tokens_through_another_endpoint_are_the_very_tokens(
    engine: Engine, relay: Gateway, ask: Any, options: dict[str, Any]
) -> None:
    def written(answer: dict[str, Any]) -> list[Any]:
        choices = [[each["message"], each["finish_reason"], each["token_ids"]] for each in answer["choices"]]
        return [answer["policy_version"], answer["logprobs_mode"], answer["prompt_token_ids"], choices]

    def logprobs(answer: dict[str, Any]) -> list[tuple[str, float]]:
        tokens = [token for each in answer["choices"] for token in each["logprobs"]["content"]]
        return [(shown["token"], shown["logprob"]) for token in tokens for shown in (token, *token["top_logprobs"])]

    direct, relayed = [await ask(gateway, HI, rollout="r", **options) for gateway in (engine, relay)]
    assert written(relayed) == written(direct)
    assert [token for token, _ in logprobs(relayed)] == [token for token, _ in logprobs(direct)]
    # rows of other batches: the last bits may differ
    values = [[value for _, value in logprobs(answer)] for answer in (relayed, direct)]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


async def test_a_stream_through_another_endpoint_says_the_same(relay: Gateway, ask: Any) -> None:
    whole = await ask(relay, HI, seed=1)
    async with client_of(relay) as client:
        stream = await client.chat.completions.create(model="policy", messages=HI, seed=1, stream=True)
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert streamed == whole["choices"][0]["message"]["content"]


async def test_a_client_that_leaves_cancels_at_the_other_endpoint(engine: Engine, relay: Gateway) -> None:
    async with client_of(relay) as client:
        stream = await client.chat.completions.create(
            model="policy", messages=HI, max_tokens=900, stream=True, temperature=1.0, logprobs=True
        )
        async for _ in stream:
            break
        await stream.close()
    while engine.sampler.stats.cancelled + engine.sampler.stats.failed == 0 and engine.sampler._scheduler._rows:
        await asyncio.sleep(0.01)
    assert engine.sampler.stats.generated_tokens < 900


async def test_an_endpoint_that_is_away_is_unavailable(engine: Engine) -> None:
    sampler = OpenAISampler("http://127.0.0.1:9/v1", engine.sampler.info)
    with pytest.raises(SamplerUnavailableError, match="completions cannot be reached"):
        async for _ in sampler.generate(np.array([1, 2]), SamplingParams()):
            pass


async def test_an_endpoint_that_states_other_logprobs_is_refused(engine: Engine) -> None:
    sampler = OpenAISampler(engine.base_url, msgspec.structs.replace(engine.sampler.info, logprobs="raw"))
    with pytest.raises(agl.errors.PolicyError, match="says that its logprobs are tempered, not raw"):
        async for _ in sampler.generate(np.array([1, 2]), SamplingParams(max_tokens=2)):
            pass


# What may change a request before it is read


async def test_a_request_can_be_prepared(tokenizer: Any) -> None:
    seen = []

    def prepare(data: bytes, operation: str) -> bytes:
        body = msgspec.json.decode(data)
        seen.append((operation, body["model"]))
        return msgspec.json.encode({**body, "model": "fake", "unconstrained": True})

    sampler = FakeSampler(tokenizer, "yes")
    async with Gateway(sampler, tokenizer=tokenizer, prepare=prepare) as gateway, client_of(gateway) as client:
        answer = await client.chat.completions.create(
            model="gpt-4o", messages=HI, response_format={"type": "json_object"}
        )
    assert (answer.model, answer.choices[0].message.content) == ("fake", "yes")
    assert seen == [("chat", "gpt-4o")]


async def test_an_endpoint_that_falls_silent_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning_gateway.endpoint.SECONDS_OF_SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, and answers nothing
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        info = ModelInfo(name="m", context_length=8, vocabulary=8, logprobs="tempered", tokenizer="none")
        with pytest.raises(SamplerUnavailableError, match="cannot be reached"):
            async for _ in OpenAISampler(base_url, info).generate(np.array([1], np.int32), SamplingParams()):
                pass
