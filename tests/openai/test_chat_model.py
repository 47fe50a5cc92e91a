"""Asking a model from within the library: counted, outside of every rollout, with errors that say what happened."""

from __future__ import annotations

import asyncio
import threading

import pytest
from stub_answers import Answer, Choice, Raw, text
from stub_server import StubServer

from agentlightning.errors import ConfigError
from agentlightning_openai.chat_model import ChatModel, ChatModelConfig, ChatModelError

QUESTION = [{"role": "user", "content": "Which is better?"}]


def model(stub: StubServer, **options: object) -> ChatModel:
    return ChatModel(ChatModelConfig(model="judge", base_url=stub.base_url, **options), at="algorithm.model")  # type: ignore[arg-type]


async def test_the_answer_is_given_with_what_it_took(stub: StubServer) -> None:
    stub.reply(text("The first."))
    judge = model(stub, temperature=0.5, input_price=2.0, output_price=4.0)
    answer = await judge.answer(QUESTION, seed=7)
    assert (answer.text, answer.cut_off, answer.usage.input_tokens > 0) == ("The first.", False, True)
    assert judge.dollars(answer.usage) == pytest.approx(
        (answer.usage.input_tokens * 2 + answer.usage.output_tokens * 4) / 1e6
    )
    body = stub.requests[0].json
    assert (body["model"], body["temperature"], body["seed"]) == ("judge", 0.5, 7)
    await judge.aclose()


def test_it_is_asked_from_several_event_loops(stub: StubServer) -> None:
    judge = model(stub)
    assert [asyncio.run(judge.answer(QUESTION)).text for _ in range(2)] == ["Hello.", "Hello."]


async def test_an_answer_that_comes_for_ever_is_given_up(stub: StubServer) -> None:
    never = threading.Event()
    stub.reply(Answer([Choice("Hello.")], hold=never))
    with pytest.raises(ChatModelError, match="judge at http"):
        await model(stub, retries=0, timeout=0.2).answer(QUESTION)
    never.set()


async def test_an_endpoint_that_fails_is_named(stub: StubServer) -> None:
    stub.reply(Raw(404, b'{"error": {"message": "no such model"}}'))
    with pytest.raises(ChatModelError, match=rf"judge at {stub.base_url}: .*no such model"):
        await model(stub, retries=0).answer(QUESTION)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"hello"',
        b"{}",
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": [1]}}]}',
        b'{"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": null}}',
    ],
)
async def test_what_is_no_chat_completion_is_no_answer(stub: StubServer, body: bytes) -> None:
    stub.reply(Raw(200, body))
    with pytest.raises(ChatModelError, match="judge at http"):
        await model(stub).answer(QUESTION)


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    config = ChatModelConfig(model="judge", base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(ChatModelError, match=r"judge at http://127\.0\.0\.1:9/v1: "):
        await ChatModel(config, at="algorithm.model").answer(QUESTION)


def test_a_key_that_is_not_set_is_named(stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"algorithm\.model\.api_key_env: the environment variable JUDGE_KEY"):
        model(stub, api_key_env="JUDGE_KEY")
