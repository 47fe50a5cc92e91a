"""A request that brings the answer it got before: it is given again, token for token, and nothing is sampled."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
import pytest

from agentlightning_policy.engine import Engine

Ask = Callable[..., Awaitable[Any]]
HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}]


def recorded(answer: dict[str, Any]) -> dict[str, Any]:
    choice = answer["choices"][0]
    return {
        "prompt_token_ids": answer["prompt_token_ids"],
        "token_ids": choice["token_ids"],
        "logprobs": [token["logprob"] for token in choice["logprobs"]["content"]],
        "policy_version": answer["policy_version"],
    }


async def test_an_answer_is_given_again_and_costs_no_sampling(engine: Engine, ask: Ask) -> None:
    first = await ask(engine, HI, max_tokens=8, seed=1)
    sampled = engine.sampler.stats.requests
    again = await ask(engine, HI, max_tokens=8, seed=2, replay={**recorded(first), "policy_version": 7})
    assert engine.sampler.stats.requests == sampled
    assert again["choices"] == first["choices"]
    assert again["policy_version"] == 7
    assert again["usage"] == first["usage"]


async def test_the_chat_goes_on_from_the_tokens_that_were_given_again(engine: Engine, ask: Ask) -> None:
    """Also in another rollout, which has never seen them."""

    async def second_prompt(rollout: str, **fields: Any) -> tuple[dict[str, Any], list[int]]:
        first = await ask(engine, HI, max_tokens=8, rollout=rollout, **fields)
        more = [*HI, first["choices"][0]["message"], {"role": "user", "content": "and then?"}]
        return first, (await ask(engine, more, max_tokens=1, rollout=rollout))["prompt_token_ids"]

    first, prompt = await second_prompt("one", seed=1)
    assert prompt[: len(first["prompt_token_ids"]) + 8] == [
        *first["prompt_token_ids"],
        *first["choices"][0]["token_ids"],
    ]
    _, again = await second_prompt("two", seed=2, replay=recorded(first))
    assert again == prompt


async def test_streams_and_the_responses_api_give_it_again(engine: Engine, client: httpx.AsyncClient, ask: Ask) -> None:
    first = await ask(engine, HI, max_tokens=8, seed=1)
    replay = recorded(first)
    text = first["choices"][0]["message"]["content"]
    sampled = engine.sampler.stats.requests
    async with openai.AsyncOpenAI(base_url=engine.base_url, api_key="none") as user:
        chunks = await user.chat.completions.create(
            model="policy", messages=HI, max_tokens=8, stream=True, extra_body={"replay": replay}
        )
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == text
        response = await user.responses.create(
            model="policy", input="hi", max_output_tokens=8, extra_body={"replay": replay}
        )
        assert response.output_text == text
    assert engine.sampler.stats.requests == sampled


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"prompt_token_ids": [1, 2]}, "diverged", "has other tokens"),
        ({"logprobs": [0.0]}, None, "one for each"),
        ({"token_ids": [10**6] * 8}, None, "no token of the model"),
        ({"token_ids": []}, None, "length"),
    ],
)
async def test_what_cannot_be_the_answer_is_refused(
    engine: Engine, client: httpx.AsyncClient, ask: Ask, change: dict[str, Any], code: str | None, message: str
) -> None:
    replay = {**recorded(await ask(engine, HI, max_tokens=8, seed=1)), **change}
    body = {"model": "policy", "messages": HI, "max_tokens": 8, "replay": replay}
    answer = await client.post(f"{engine.base_url}/chat/completions", json=body)
    assert answer.status_code == 400
    error = json.loads(answer.text)["error"]
    assert error["code"] == code
    assert message in error["message"]


async def test_several_choices_have_no_recorded_answer(engine: Engine, client: httpx.AsyncClient, ask: Ask) -> None:
    replay = recorded(await ask(engine, HI, max_tokens=8, seed=1))
    body = {"model": "policy", "messages": HI, "max_tokens": 8, "n": 2, "replay": replay}
    answer = await client.post(f"{engine.base_url}/chat/completions", json=body)
    assert answer.status_code == 400
    assert "n = 1" in answer.text
