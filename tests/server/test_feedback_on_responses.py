"""What a user thinks of a response, known by the id that the client saw, becomes the reward of its rollout."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import Raw
from stub_server import StubServer

from agentlightning.records import Rollout, Span
from agentlightning_server.keys import Keys
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"


class Conversation:
    """A rollout that runs, whose agent uses the openai client."""

    def __init__(self, server: LightningServer, store: RemoteStore) -> None:
        self.server, self.store = server, store
        self.leased: Rollout

    async def begin(self, id: str = "chat", run: str = "mine") -> openai.OpenAI:
        await self.store.open_run(a_run(run))
        await self.store.enqueue([a_rollout(id, run_id=run)])
        [self.leased] = await self.store.lease("w", ids=[id], seconds=FOR_EVER)
        return openai.OpenAI(base_url=f"{self.server.url}/rollouts/{id}/v1", api_key=KEY)

    async def end(self, status: Any = "succeeded") -> None:
        self.leased.status = status
        assert await self.store.finish(self.leased)

    def say(self, key: str = KEY, **feedback: Any) -> tuple[int, Any]:
        sent = {"authorization": f"Bearer {key}"}
        answer = httpx.post(f"{self.server.url}/v1/feedback", json=feedback, headers=sent)
        return answer.status_code, answer.json()

    async def words(self, id: str = "chat") -> list[Span]:
        return [span for span in await self.store.spans(id) if span.name == "feedback"]


@pytest.fixture
async def conversation(serve: Callable[..., LightningServer], upstream: StubServer) -> AsyncIterator[Conversation]:
    server = serve(key=KEY, upstreams=[upstream.base_url])
    store = RemoteStore(server.url, key=KEY)
    yield Conversation(server, store)
    await store.close()


def chat(client: openai.OpenAI) -> str:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}]).id


def chat_streamed(client: openai.OpenAI) -> str:
    messages: Any = [{"role": "user", "content": "Hi"}]
    return [chunk.id for chunk in client.chat.completions.create(model="m", messages=messages, stream=True)][-1]


def respond(client: openai.OpenAI) -> str:
    return client.responses.create(model="m", input="Hi").id


@pytest.mark.parametrize("ask", [chat, chat_streamed, respond])
async def test_the_id_that_the_client_saw_names_the_rollout_and_the_call(
    conversation: Conversation, ask: Callable[[openai.OpenAI], str]
) -> None:
    id = ask(await conversation.begin())
    await conversation.end()
    status, said = conversation.say(response_id=id, thumbs="up", user="ann")
    assert (status, said) == (200, {"rollout_id": "chat", "feedback": 1.0, "outcome": 1.0})
    [call, word] = await conversation.store.spans("chat")
    assert (word.parent_id, word.reward and word.reward.value) == (call.id, 1.0)


async def test_words_of_one_user_on_two_responses_both_count_and_the_last_on_each(conversation: Conversation) -> None:
    client = await conversation.begin()
    first, second = chat(client), chat(client)
    await conversation.end()
    for id, score in ((first, 0.0), (second, 0.5), (first, 1.0)):
        status, said = conversation.say(response_id=id, score=score, user="ann")
    assert (status, said["feedback"]) == (200, 0.75)
    assert len(await conversation.words()) == 2


async def test_an_id_that_nobody_was_given_is_404_and_says_so(conversation: Conversation) -> None:
    status, said = conversation.say(response_id="chatcmpl-nobodys", thumbs="up")
    assert status == 404
    assert "no call that this key is for was answered with the id chatcmpl-nobodys" in said["message"]


async def test_an_id_that_calls_of_two_rollouts_got_wants_the_rollout_beside(
    conversation: Conversation, upstream: StubServer
) -> None:
    body = {"id": "same", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]}
    upstream.reply(Raw(200, json.dumps(body).encode()), Raw(200, json.dumps(body).encode()))
    for rollout in ("one", "two"):
        assert chat(await conversation.begin(rollout)) == "same"
        await conversation.end()
    status, said = conversation.say(response_id="same", thumbs="up")
    assert (status, "several rollouts" in said["message"]) == (409, True)
    assert conversation.say(response_id="same", rollout_id="two", thumbs="up")[1]["rollout_id"] == "two"
    assert conversation.say(response_id="same", rollout_id="three", thumbs="up")[0] == 404
    assert [len(await conversation.words(id)) for id in ("one", "two")] == [0, 1]


async def test_a_response_of_an_attempt_that_was_tried_again_counts_for_nothing(conversation: Conversation) -> None:
    id = chat(await conversation.begin())
    await conversation.end("queued")
    await conversation.begin()
    await conversation.end()
    status, said = conversation.say(response_id=id, thumbs="up")
    assert (status, "attempt 1 of rollout chat, which is at attempt 2" in said["message"]) == (409, True)


async def test_a_key_finds_no_response_of_what_it_is_not_for(conversation: Conversation) -> None:
    id = chat(await conversation.begin())
    await conversation.end()
    keys = Keys(KEY)
    theirs = keys.issue("theirs", write=True, seconds=600)
    other = keys.issue_for_rollout("other", write=True, seconds=600)
    unknown = conversation.say(theirs, response_id="chatcmpl-nobodys", thumbs="up")
    assert unknown[0] == 404
    for key in (theirs, other):
        status, said = conversation.say(key, response_id=id, thumbs="up")
        assert (status, said["message"]) == (404, unknown[1]["message"].replace("chatcmpl-nobodys", id))
    for key in (keys.issue("mine", write=True, seconds=600), keys.issue_for_rollout("chat", write=True, seconds=600)):
        assert conversation.say(key, response_id=id, thumbs="up")[0] == 200
    assert conversation.say(keys.issue("mine", write=False, seconds=600), response_id=id, thumbs="up")[0] == 403
