"""Whichever API an agent calls, the model layer records the very tokens that the engine drew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest

from agentlightning.plugins import plugins
from agentlightning.recording import Recorder, recording
from agentlightning_policy.config import ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.trainer import UNCUT


async def chat(client: openai.AsyncOpenAI, streamed: bool) -> str:
    messages = [{"role": "user", "content": "hi"}]
    answer = await client.chat.completions.create(model="gpt", messages=messages, max_tokens=8, stream=streamed)
    if streamed:
        return "".join([part.choices[0].delta.content or "" async for part in answer])
    return answer.choices[0].message.content


async def responses(client: openai.AsyncOpenAI, streamed: bool) -> str:
    answer = await client.responses.create(model="gpt", input="hi", max_output_tokens=8, stream=streamed)
    if streamed:
        return "".join([event.delta async for event in answer if event.type == "response.output_text.delta"])
    return answer.output_text


async def text(client: openai.AsyncOpenAI, streamed: bool) -> str:
    answer = await client.completions.create(model="gpt", prompt="hi", max_tokens=8, stream=streamed)
    if streamed:
        return "".join([part.choices[0].text async for part in answer])
    return answer.choices[0].text


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("call", [chat, responses, text])
async def test_every_api_gives_exact_tokens(tiny_model, call, streamed) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    spans = []
    (layer,) = (adapter for adapter in plugins().adapters() if adapter.name == "openai")
    layer.install()
    try:
        async with (
            Engine(policy) as engine,
            openai.AsyncOpenAI(base_url="http://127.0.0.1:9", api_key="none") as client,
        ):
            recorder = Recorder("r", 1, spans.extend, [engine.resource("policy", temperature=1.0)], seed=3)
            with recording(recorder):
                shown = await call(client, streamed)
            recorder.close()
    finally:
        layer.uninstall()
    (span,) = spans
    said = span.generation
    assert span.failure is None
    assert (said.provenance, said.policy, said.policy_version) == ("exact", "policy", 0)
    assert len(said.response_ids) == len(said.logprobs) == said.usage.output_tokens
    assert said.response["content"] == shown == policy.tokenizer.decode(said.response_ids, skip_special_tokens=True)
    assert said.messages == [{"role": "user", "content": "hi"}]
    assert len(said.prompt_ids) == said.usage.input_tokens
    assert np.all(said.logprobs < 0)


async def leave(stream: Any, says: Callable[[Any], str | None]) -> str:
    """Reads until the third text; returns what was read."""
    read: list[str] = []
    async for event in stream:
        read += [said] if (said := says(event)) else []
        if len(read) == 3:
            break
    return "".join(read)


async def leave_chat(client: openai.AsyncOpenAI) -> str:
    messages = [{"role": "user", "content": "hi"}]
    stream = await client.chat.completions.create(model="gpt", messages=messages, max_tokens=64, stream=True)
    return await leave(stream, lambda chunk: chunk.choices[0].delta.content)


async def leave_responses(client: openai.AsyncOpenAI) -> str:
    stream = await client.responses.create(model="gpt", input="hi", max_output_tokens=64, stream=True)

    def says(event: Any) -> str | None:
        if event.type != "response.output_text.delta":
            return None
        assert (event.logprobs, getattr(event, "token_ids", None)) == ([], None)  # which the agent did not ask for
        return event.delta

    return await leave(stream, says)


async def leave_text(client: openai.AsyncOpenAI) -> str:
    stream = await client.completions.create(model="gpt", prompt="hi", max_tokens=64, stream=True)
    return await leave(stream, lambda chunk: chunk.choices[0].text)


@pytest.mark.parametrize("call", [leave_chat, leave_responses, leave_text])
async def test_a_stream_left_early_has_the_tokens_of_what_was_read(tiny_model, call) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    spans = []
    (layer,) = (adapter for adapter in plugins().adapters() if adapter.name == "openai")
    layer.install()
    try:
        async with (
            Engine(policy) as engine,
            openai.AsyncOpenAI(base_url="http://127.0.0.1:9", api_key="none") as client,
        ):
            recorder = Recorder("r", 1, spans.extend, [engine.resource("policy", temperature=1.0)], seed=3)
            with recording(recorder):
                read = await call(client)
            recorder.close()
    finally:
        layer.uninstall()
    (span,) = spans
    said = span.generation
    assert (span.failure, said.provenance, said.finish_reason) == (None, "exact", None)
    assert said.response["content"] == read
    assert policy.tokenizer.decode(said.response_ids.tolist()).startswith(read)
    assert 3 <= len(said.response_ids) < 64


async def test_an_agents_wishes_do_not_bend_what_is_trained(tiny_model) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    wishes = {
        "temperature": 0.1,
        "top_p": 0.1,
        "frequency_penalty": 1.5,
        "logit_bias": {"7": -100},
        "response_format": {"type": "json_object"},
        "reasoning_effort": "low",
        "verbosity": "low",
        "extra_body": {"top_k": 1, "min_p": 0.9, "repetition_penalty": 1.3, "guided_choice": ["a", "b"]},
    }
    drawn = []
    (layer,) = (adapter for adapter in plugins().adapters() if adapter.name == "openai")
    layer.install()
    try:
        async with (
            Engine(policy) as engine,
            openai.AsyncOpenAI(base_url="http://127.0.0.1:9", api_key="none") as client,
        ):
            for options in ({}, wishes):
                spans: list = []
                recorder = Recorder("r", 1, spans.extend, [engine.resource("policy", temperature=1.0, **UNCUT)], seed=3)
                with recording(recorder):
                    await client.chat.completions.create(
                        model="gpt", messages=[{"role": "user", "content": "hi"}], max_tokens=8, **options
                    )
                recorder.close()
                drawn.append(spans[0].generation.response_ids.tolist())
    finally:
        layer.uninstall()
    assert drawn[0] == drawn[1]
