"""A deployed agent whose calls get what is in production, and what becomes of it where that cannot be had."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
from stub_server import StubServer

import agentlightning as agl
from agentlightning.online import production as following
from agentlightning.promotion.canary import watch
from agentlightning.promotion.production import arm_of, begin, roll_back
from agentlightning.records import ModelChoice, Policy, Prompt, Rollout
from agentlightning.store import Store, open_store
from agentlightning.store.promotions import Promotion

T = TypeVar("T")

BRIEF = Prompt(name="system", template="Be brief.")
OWN = "The agent's own prompt."


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def attach(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    monkeypatch.setattr(following, "FIRST_SECONDS", 60.0)  # however slow this machine is
    yield lambda **options: agl.attach(url, buffer=tmp_path / "buffer", **{"apply": True, **options})
    agl.detach()


@pytest.fixture
def ask(stub: StubServer) -> Callable[[], str | None]:
    """Runs the agent once; what it was asked is in the stub. Gives the id of the rollout."""
    client = openai.OpenAI(base_url=stub.base_url, api_key="sk-a-key-of-the-tests-12345", max_retries=0)

    def call() -> str | None:
        messages: Any = [{"role": "system", "content": OWN}, {"role": "user", "content": "hello?"}]
        with agl.live("support", input="hello?") as run:
            run.output = client.chat.completions.create(model="own", messages=messages).choices[0].message.content
        assert run.output == "Hello."
        return run.rollout_id

    return call


def in_store(url: str, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def do() -> T:
        store = open_store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(do())


def promote(url: str, *resources: Any, **fields: Any) -> Promotion:
    promotion = Promotion(target="live", run_id="run", resources=list(resources), **fields)
    return in_store(url, lambda store: begin(store, promotion))


def recorded(url: str) -> list[Rollout]:
    agl.detach(timeout=30)
    return in_store(url, lambda store: store.rollouts("live"))


def asked(stub: StubServer) -> list[tuple[str, str]]:
    """The model and the system prompt of each request."""
    bodies = [request.json for request in stub.requests]
    return [(body["model"], body["messages"][0]["content"]) for body in bodies]


def test_calls_get_what_is_in_production_and_the_rollout_says_what(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    choice = ModelChoice(name="model", model="chosen", base_url=stub.base_url)
    given = promote(url, BRIEF, choice)
    attach()
    ask()
    assert asked(stub) == [("chosen", "Be brief.")]
    (rollout,) = recorded(url)
    assert (rollout.resources, rollout.collection) == (given.digests, "live")
    assert in_store(url, lambda store: store.resource("live", rollout.resources["system"])) == BRIEF


def test_nothing_is_applied_unless_it_is_asked_for_or_where_nothing_is_promoted(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    attach()
    ask()
    agl.detach(timeout=30)
    promote(url, BRIEF)
    attach(apply=False)
    ask()
    assert asked(stub) == [("own", OWN), ("own", OWN)]
    assert [rollout.resources for rollout in recorded(url)] == [{}, {}]


def test_a_change_reaches_a_process_that_runs(
    attach: Callable[..., None],
    ask: Callable[[], str | None],
    stub: StubServer,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: asyncio.Queue[None] = asyncio.Queue()
    take = following.Production._take

    def noted(self: Any, promotions: Any) -> None:
        take(self, promotions)
        taken.put_nowait(None)

    monkeypatch.setattr(following.Production, "_take", noted)

    def until_taken() -> None:
        asyncio.run(asyncio.wait_for(_polled(taken), 30))

    attach()
    until_taken()
    promote(url, BRIEF)
    until_taken()
    ask()
    in_store(url, lambda store: roll_back(store, "live", "by hand"))
    until_taken()
    ask()
    assert asked(stub) == [("own", "Be brief."), ("own", OWN)]


async def _polled(queue: asyncio.Queue[None]) -> None:
    while queue.empty():
        await asyncio.sleep(0.01)
    queue.get_nowait()


def test_what_was_known_last_is_applied_where_the_store_is_away(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    promote(url, BRIEF)
    attach()
    agl.detach(timeout=30)
    file = Path(url.removeprefix("sqlite:///"))
    for one in file.parent.glob(f"{file.name}*"):
        one.unlink()
    file.mkdir()  # no store can be opened there
    attach()
    ask()
    assert asked(stub) == [("own", "Be brief.")]


def test_runs_that_are_not_recorded_get_it_too(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    promote(url, BRIEF)
    attach(sample=0.0)
    with agl.live("outer", input=1):
        assert agl.current_rollout() is None
        assert ask() is None
    assert asked(stub) == [("own", "Be brief.")]
    assert recorded(url) == []


def test_a_call_that_it_cannot_be_applied_to_is_sent_as_the_agent_made_it(
    attach: Callable[..., None],
    ask: Callable[[], str | None],
    stub: StubServer,
    url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    promote(
        url, BRIEF, ModelChoice(name="model", model="chosen", base_url=stub.base_url, api_key_env="NOT_SET_ANYWHERE")
    )
    attach()
    ask()
    assert asked(stub) == [("own", OWN)]
    (rollout,) = recorded(url)
    assert (rollout.status, rollout.resources) == ("succeeded", {})
    assert "NOT_SET_ANYWHERE" in caplog.text
    spans = in_store(url, lambda store: store.spans(rollout.id))
    assert [span.name for span in spans if span.kind == "annotation"] == ["resources not applied"]


def test_weights_are_asked_where_they_are_served_and_not_where_nobody_has_said(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    promote(url, Policy(name="policy", model="trained", base_url=""))
    attach()
    ask()
    agl.detach(timeout=30)
    promote(url, Policy(name="policy", version=2, model="trained", base_url=stub.base_url))
    attach()
    ask()
    assert [model for model, _ in asked(stub)] == ["own", "trained"]


def test_a_share_of_the_runs_is_a_canarys_and_it_is_rolled_back_where_it_is_worse(
    attach: Callable[..., None], ask: Callable[[], str | None], stub: StubServer, url: str
) -> None:
    canary = promote(url, BRIEF, status="canary", share=0.5)
    attach()
    for _ in range(60):
        with agl.live("support", input="hello?") as run:
            ask()
            assert run.rollout_id is not None
            agl.reward(float(arm_of(canary, run.rollout_id) == "control"))
    found = recorded(url)
    arms = {rollout.id: arm_of(canary, rollout.id) for rollout in found}
    assert {rollout.collection for rollout in found} == {f"canary/{canary.id}", f"control/{canary.id}"}
    for rollout in found:
        assert rollout.collection == f"{arms[rollout.id]}/{canary.id}"
        assert rollout.resources == (canary.digests if arms[rollout.id] == "canary" else {})
    assert [prompt == "Be brief." for _, prompt in asked(stub)] == [
        arms[rollout.id] == "canary" for rollout in sorted(found, key=lambda one: one.created_at)
    ]
    ended = in_store(url, lambda store: watch(store, "live"))
    assert ended is not None
    assert ended.status == "rolled_back"


def test_a_process_that_is_forked_goes_on_with_what_was_known(url: str, stub: StubServer, tmp_path: Path) -> None:
    promote(url, BRIEF)
    program = f"""
import os, sys
import openai
import agentlightning as agl
agl.attach({url!r}, buffer={str(tmp_path / "buffer")!r}, apply=True)
def ask():
    with agl.live("support", input="hello?"), openai.OpenAI(base_url={stub.base_url!r}, api_key="k") as client:
        client.chat.completions.create(model="own", messages=[{{"role": "system", "content": "own"}}])
ask()
child = os.fork()
ask()
agl.detach(30)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)
    assert asked(stub) == [("own", "Be brief.")] * 3
    rollouts = in_store(url, lambda store: store.rollouts("live"))
    assert [set(rollout.resources) for rollout in rollouts] == [{"system"}] * 3
