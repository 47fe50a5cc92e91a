"""What users think of a rollout becomes its reward, however late, and however often they change their mind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from store_records import a_rollout, a_run, a_span

from agentlightning.cli import main
from agentlightning.records import Reward
from agentlightning_server.keys import Keys
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"


@pytest.fixture
async def rated(server: LightningServer) -> LightningServer:
    """A server with the rollout ``done``, which is worth 0.5, and the rollout ``queued``."""
    store = RemoteStore(server.url)
    await store.enqueue([a_rollout("done"), a_rollout("queued")])
    [leased] = await store.lease("worker", ids=["done"])
    store.add_spans([a_span("done")])
    leased.status, leased.rewards = "succeeded", [Reward(name="exact", value=0.5)]
    await store.finish(leased)
    await store.close()
    return server


def send(server: LightningServer, **feedback: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/feedback", json=feedback)


async def feedback_of(server: LightningServer) -> tuple[Reward, int]:
    """The reward, and how many said what they think."""
    store = RemoteStore(server.url)
    rollout, spans = await store.rollout_with_spans("done")
    await store.close()
    [reward] = [reward for reward in rollout.rewards if reward.name == "feedback"]
    return reward, sum(span.name == "feedback" for span in spans)


async def test_a_score_with_a_comment_becomes_a_reward_of_the_rollout(rated: LightningServer) -> None:
    answer = send(rated, rollout_id="done", score=0.25, comment="too long", user="ann")
    assert (answer.status_code, answer.json()) == (200, {"rollout_id": "done", "feedback": 0.25, "outcome": 0.75})
    reward, words = await feedback_of(rated)
    assert (reward.value, reward.step, reward.reason, words) == (0.25, False, "ann: 0.25 (too long)", 1)


@pytest.mark.parametrize(("thumbs", "value"), [("up", 1.0), ("down", 0.0)])
async def test_a_thumb_is_one_or_zero(rated: LightningServer, thumbs: str, value: float) -> None:
    assert send(rated, rollout_id="done", thumbs=thumbs).json()["feedback"] == value


async def test_the_second_word_of_a_user_replaces_the_first_and_several_users_are_averaged(
    rated: LightningServer,
) -> None:
    send(rated, rollout_id="done", thumbs="down", user="ann")
    send(rated, rollout_id="done", thumbs="up", user="bob", comment="good")
    assert send(rated, rollout_id="done", score=0.5, user="ann").json()["feedback"] == 0.75
    reward, words = await feedback_of(rated)
    assert (reward.value, words) == (0.75, 2)
    assert reward.reason == "bob: 1 (good); ann: 0.5"


async def test_feedback_sent_twice_counts_once(rated: LightningServer) -> None:
    for _ in range(2):
        send(rated, rollout_id="done", thumbs="up")
    reward, words = await feedback_of(rated)
    assert (reward.value, words) == (1.0, 1)


@pytest.mark.parametrize(
    ("reward", "outcome"),
    [
        (["exact", {"name": "feedback", "weight": 0.5}], 1.0),
        ({"name": "feedback", "weight": 4.0}, 4.5),
        (["exact", "feedback"], 1.5),
        ([], 1.5),
    ],
)
async def test_feedback_has_the_weight_that_the_config_of_its_run_gives_it(
    rated: LightningServer, reward: Any, outcome: float
) -> None:
    store = RemoteStore(rated.url)
    await store.open_run(a_run("run", config={"reward": reward}))
    await store.close()
    for _ in range(2):
        assert send(rated, rollout_id="done", thumbs="up").json()["outcome"] == outcome


async def test_feedback_is_shown_with_the_rollout(rated: LightningServer) -> None:
    send(rated, rollout_id="done", thumbs="up", comment="just right", user="ann")
    shown = await asyncio.to_thread(CliRunner().invoke, main, ["show", "done", "--store", rated.url])
    assert shown.exit_code == 0, shown.output
    assert "feedback" in shown.output
    assert "just right" in shown.output


def test_feedback_for_a_rollout_that_is_not_there_is_404(rated: LightningServer) -> None:
    answer = send(rated, rollout_id="nobody", thumbs="up")
    assert (answer.status_code, "no rollout nobody" in answer.json()["message"]) == (404, True)


def test_feedback_for_a_rollout_that_has_not_finished_is_409(rated: LightningServer) -> None:
    answer = send(rated, rollout_id="queued", thumbs="up")
    assert (answer.status_code, "queued is queued" in answer.json()["message"]) == (409, True)


@pytest.mark.parametrize(
    "feedback",
    [
        {"rollout_id": "done"},
        {"rollout_id": "done", "score": 1, "thumbs": "up"},
        {"rollout_id": "done", "score": "good"},
        {"rollout_id": "done", "thumbs": "sideways"},
        {"rollout_id": "done", "score": 1, "stars": 5},
        {"rollout_id": "done", "score": 1, "user": "u" * 201},
        {"score": 1},
        [],
    ],
)
def test_feedback_that_is_none_is_400(rated: LightningServer, feedback: Any) -> None:
    answer = httpx.post(f"{rated.url}/v1/feedback", json=feedback)
    assert (answer.status_code, answer.json()["error"]) == (400, "RequestError")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b'{"rollout_id": "done", "score": 1e999}', 400),
        (b"[" * 50_000, 400),
        (b"x" * 70_000, 413),
    ],
)
def test_a_body_that_is_no_feedback_is_refused(rated: LightningServer, body: bytes, status: int) -> None:
    answer = httpx.post(f"{rated.url}/v1/feedback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status


def test_a_page_of_another_site_can_give_no_feedback(rated: LightningServer) -> None:
    """A browser sends plain text anywhere, and asks before it sends JSON."""
    body = b'{"rollout_id": "done", "score": 1}'
    assert httpx.post(f"{rated.url}/v1/feedback", content=body).status_code == 415


async def test_feedback_needs_a_key_that_writes_the_run(serve: Callable[..., LightningServer]) -> None:
    guarded, keys = serve(key=KEY), Keys(KEY)
    store = RemoteStore(guarded.url, key=KEY)
    await store.enqueue([a_rollout("a", run_id="mine")])
    await store.close()
    allowed = {
        keys.issue("mine", write=True, seconds=60): 409,  # it is allowed, and the rollout has not finished
        keys.issue("mine", write=False, seconds=60): 403,
        keys.issue("theirs", write=True, seconds=60): 403,
    }
    for key, status in allowed.items():
        headers = {"authorization": f"Bearer {key}"}
        body = {"rollout_id": "a", "thumbs": "up"}
        assert httpx.post(f"{guarded.url}/v1/feedback", json=body, headers=headers).status_code == status
