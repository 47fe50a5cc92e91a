"""What goes wrong, where, and what is left of it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat, SelectorGroupChat
from openai import RateLimitError
from stub_answers import error, text

from agentlightning.agent_here import attribute_failure
from agentlightning_autogen import adapter as ours


class Broken(BaseChatAgent):
    """Raises."""

    produced_message_types = (TextMessage,)

    def __init__(self, error: BaseException) -> None:
        super().__init__("broken", "Raises.")
        self.error = error

    async def on_messages(self, messages, cancellation_token):
        raise self.error

    async def on_reset(self, cancellation_token):
        pass


async def test_what_a_participant_raises_is_what_the_rollout_raises(adapter, rollout, assistant):
    inner = RoundRobinGroupChat([Broken(KeyError("lost")), assistant("critic")], name="inner")
    team = RoundRobinGroupChat([inner, assistant("boss")], name="outer")
    with rollout() as recorded, pytest.raises(KeyError, match="lost"):
        await adapter.run(team, "Go.")
    assert recorded.outline() == [
        "team outer [outer] !agent_error",
        "  team inner [inner] !agent_error",
        "    agent broken [broken] !agent_error",
    ]
    assert {span.failure.exception for span in recorded.spans} == {"builtins.KeyError"}
    assert {span.failure.message for span in recorded.spans} == {"'lost'"}


async def test_an_agents_own_runtime_error_is_left_alone(adapter, rollout):
    raised = RuntimeError("ValueError: not really")
    with rollout(), pytest.raises(RuntimeError) as caught:
        await adapter.run(RoundRobinGroupChat([Broken(raised)]), "Go.")
    assert str(caught.value) == str(raised)
    assert raised.__cause__ is None
    assert not raised.__suppress_context__


@pytest.mark.parametrize("selects", [True, False], ids=["the selector's call", "a participant's call"])
async def test_an_endpoints_fault_is_not_the_agents(adapter, rollout, assistant, endpoint, model, selects):
    endpoint.reply(lambda _: error(429, "slow down"))
    agents = [assistant("writer"), assistant("critic")]
    team = SelectorGroupChat(agents, model) if selects else RoundRobinGroupChat(agents)
    with rollout() as recorded, pytest.raises(RateLimitError) as caught:
        await adapter.run(team, "Go.")
    assert recorded.only("llm").failure.type == "rate_limited"
    assert attribute_failure(caught.value, recorded.recorder).fault == "infrastructure"


class Waiting(BaseChatAgent):
    """Waits for good, and takes no notice of its cancellation token."""

    produced_message_types = (TextMessage,)

    def __init__(self, begun: threading.Event) -> None:
        super().__init__("waiting", "Waits.")
        self.begun = begun

    async def on_messages(self, messages, cancellation_token):
        self.begun.set()
        await asyncio.Event().wait()
        return Response(chat_message=TextMessage(source=self.name, content="never"))

    async def on_reset(self, cancellation_token):
        pass


async def cancelled_once(begun, run):
    """Cancels the run once it has begun."""
    task = asyncio.ensure_future(run)
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def slow_endpoint(endpoint):
    """Does not answer its first request before the test is over; ``begun`` tells that the request is there."""
    begun, hold = threading.Event(), threading.Event()

    def slow(_):
        if begun.is_set():
            return text("Hello.")
        begun.set()
        return text("too late", hold=hold)

    endpoint.reply(slow)
    yield begun
    hold.set()


@pytest.mark.parametrize("waits", ["model", "agent"])
async def test_a_cancelled_team_ends_with_all_it_has_begun(
    adapter, rollout, assistant, slow_endpoint, monkeypatch, waits
):
    monkeypatch.setattr(ours, "GRACE_SECONDS", 60.0)  # none is needed
    agent = assistant("writer") if waits == "model" else Waiting(slow_endpoint)
    inner = RoundRobinGroupChat([agent], name="inner")
    team = RoundRobinGroupChat([inner], name="outer")
    before = asyncio.all_tasks()
    with rollout() as recorded:
        await cancelled_once(slow_endpoint, adapter.run(team, "Go."))
        left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left
    assert {span.failure.type for span in recorded.spans} == {"cancelled"}
    assert recorded.outline()[:3] == [
        "team outer [outer] !cancelled",
        "  team inner [inner] !cancelled",
        f"    agent {agent.name} [{agent.name}] !cancelled",
    ]


async def test_a_cancelled_model_call_ends_its_team_without_the_hooks(
    adapter, rollout, assistant, slow_endpoint, monkeypatch
):
    monkeypatch.setattr(ours, "GRACE_SECONDS", 60.0)  # none is needed
    adapter.uninstall()
    team = RoundRobinGroupChat([assistant("writer")])
    before = asyncio.all_tasks()
    with rollout():
        await cancelled_once(slow_endpoint, adapter.run(team, "Go."))
    assert asyncio.all_tasks() <= before


async def test_a_cancelled_run_that_does_not_end_is_left(adapter, rollout, slow_endpoint, monkeypatch):
    """Without the hooks, nobody knows the tasks of the runtime."""
    monkeypatch.setattr(ours, "GRACE_SECONDS", 0.01)
    adapter.uninstall()
    before = asyncio.all_tasks()
    with rollout():
        await cancelled_once(slow_endpoint, adapter.run(RoundRobinGroupChat([Waiting(slow_endpoint)]), "Go."))
    assert asyncio.all_tasks() > before


async def test_the_next_rollout_after_a_cancelled_one_is_whole(adapter, rollout, assistant, slow_endpoint):
    team = RoundRobinGroupChat([assistant("writer")], max_turns=1)
    with rollout():
        await cancelled_once(slow_endpoint, adapter.run(team, "Go."))
    with rollout() as recorded:
        output = await adapter.run(team, "Go.")
    assert output["messages"][-1]["content"] == "Hello."
    assert [span.failure for span in recorded.spans] == [None] * 3
