"""Learning from what deployed agents were recorded to say."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_run import DrawnRun
from transformers import AutoTokenizer

from agentlightning.chats import chats_of
from agentlightning.errors import AlgorithmError, ConfigError, StoreError
from agentlightning.recorded import FromLive, best_recorded
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task
from agentlightning.store import Recorded, RunRecord, Store, open_store
from agentlightning_gateway.chat import Chat
from agentlightning_sft.algorithm import SFT
from agentlightning_sft.recorded import rows_of_recorded

RUN = RunRecord(id="live", name="live", algorithm="live", status="live")
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def said(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(index: int, messages: list[Any], response: Any, *, agent: str = "solver", **more: Any) -> Span:
    generation = Generation(messages=messages, response=response, finish_reason=more.pop("finish_reason", "stop"))
    return Span(
        id=f"s{index}", rollout_id="r", index=index, kind="llm", name="chat", agent=agent, generation=generation, **more
    )


def recorded(id: str, answer: str, score: float | None = None, *, ended_at: float | None = None) -> Recorded:
    rewards = [] if score is None else [Reward(name="score", value=score)]
    rollout = Rollout(
        id=id,
        run_id="live",
        group_id="g",
        task_id="t",
        purpose="observe",
        attempt=1,
        status="succeeded",
        rewards=rewards,
        ended_at=ended_at,
    )
    span = call(0, [said("user", "3 + 4?")], said("assistant", answer))
    span.rollout_id = id
    return Recorded(task=Task(id="t", input="3 + 4?"), rollout=rollout, spans=[span])


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


@pytest.fixture
def chat(tiny_model: Path) -> Chat:
    return Chat(AutoTokenizer.from_pretrained(tiny_model), ())


async def best(store: Store, threshold: float | None = None, **which: Any) -> list[str]:
    found = await best_recorded(store, FromLive(run="live", **which), threshold=threshold)
    return [one.rollout.id for one in found]


async def test_the_best_are_those_of_the_highest_outcome(store: Store) -> None:
    await store.add_recorded(
        RUN, [recorded("b", "7", 1.0), recorded("a", "7", 1.0), recorded("c", "8", 0.5), recorded("d", "?")]
    )
    assert await best(store, threshold=1.0) == ["a", "b"]
    assert await best(store, top=0.5) == ["a", "b"]
    assert await best(store, top=1.0) == ["a", "b", "c"]


async def test_feedback_that_comes_later_changes_what_is_learned_from(store: Store) -> None:
    await store.add_recorded(RUN, [recorded("a", "7"), recorded("b", "8")])
    with pytest.raises(AlgorithmError, match="of 2 rollouts 0 have an outcome"):
        await best(store, threshold=1.0)
    await store.add_rewards("a", 1, [Reward(name="feedback", value=1.0)])
    await store.add_rewards("b", 1, [Reward(name="feedback", value=0.0)])
    assert await best(store, threshold=1.0) == ["a"]
    await store.add_rewards("a", 1, [Reward(name="feedback", value=0.0)])
    await store.add_rewards("b", 1, [Reward(name="feedback", value=1.0)])
    assert await best(store, threshold=1.0) == ["b"]


async def test_only_what_ended_since_is_learned_from(store: Store) -> None:
    now = time.time()
    await store.add_recorded(
        RUN, [recorded("old", "7", 1.0, ended_at=now - 8 * 86400), recorded("new", "7", 1.0, ended_at=now - 60)]
    )
    assert await best(store, since="7d") == ["new"]
    assert await best(store, since="2001-01-31") == ["new", "old"]
    with pytest.raises(ConfigError, match="since: 'yesterday': expected a time such as 24h"):
        await best(store, since="yesterday")


async def test_a_run_that_is_not_there_is_said_with_those_that_are(store: Store) -> None:
    await store.add_recorded(RUN, [recorded("a", "7", 1.0)])
    with pytest.raises(StoreError, match="no live run 'other' in this store; there is live"):
        await best_recorded(store, FromLive(run="other"), threshold=None)


def test_calls_that_go_on_from_each_other_are_one_chat_in_which_every_answer_is_learned_once() -> None:
    asked = [said("user", "3 + 4?")]
    first = said("assistant", None, tool_calls=[CALL])
    again = said("assistant", "", tool_calls=[CALL], refusal=None)  # as a framework sends it back
    tool = said("tool", "7", tool_call_id="1")
    (chat,) = chats_of(
        [call(0, asked, first), call(1, [*asked, again, tool], said("assistant", "It is 7."))], agents=["*"]
    )
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
    assert chat.answers == {1, 3}


def test_what_was_said_before_the_rollout_or_went_wrong_or_was_another_agents_is_not_learned() -> None:
    history = [said("user", "hello"), said("assistant", "Hi!"), said("user", "3 + 4?")]
    failure = Failure(type="rate_limited", message="later", fault="infrastructure")
    chats = chats_of(
        [
            call(0, history, said("assistant", "7")),
            call(1, [said("user", "a")], said("assistant", "cut o"), finish_reason="length"),
            call(2, [said("user", "b")], said("assistant", "half"), failure=failure),
            call(3, [said("user", "c")], said("assistant", "other"), agent="judge"),
        ],
        agents=["solver"],
    )
    assert [chat.answers for chat in chats] == [{3}]


def test_only_the_answers_are_trained(chat: Chat) -> None:
    (row,) = rows_of_recorded([recorded("a", "The answer is 7.")], chat, policy="policy", agents=["*"])
    learned = "".join(chat.token_text(int(token)) for token in row.token_ids[row.mask])
    assert learned == "The answer is 7.<|im_end|>"
    assert not np.any(row.logprobs)


def test_a_rollout_that_the_template_cannot_show_is_left_out_and_said(
    chat: Chat, caplog: pytest.LogCaptureFixture
) -> None:
    odd = recorded("odd", "7")
    odd.spans[0].generation.messages = [{"role": "user", "content": 12}]  # type: ignore[union-attr]
    rows = rows_of_recorded([odd, recorded("a", "7")], chat, policy="policy", agents=["*"])
    assert [row.rollout_id for row in rows] == ["a"]
    assert "1 of 2 recorded rollouts are left out: rollout odd:" in caplog.text
    with pytest.raises(AlgorithmError, match="nothing to learn from in 1 recorded rollouts: rollout odd"):
        rows_of_recorded([odd], chat, policy="policy", agents=["*"])


class LiveRun(DrawnRun):
    """A run whose deployed agent was recorded to say ``rows``."""

    rows: list[Recorded]
    asked: list[tuple[FromLive, float | None]]

    async def recorded(self, which: FromLive, *, threshold: float | None) -> list[Recorded]:
        self.asked.append((which, threshold))
        return self.rows

    async def evaluate(self, **_: Any) -> Any:
        return None


async def trained(tiny_model: Path, folder: Path, answer: str, **section: Any) -> tuple[list[float], LiveRun]:
    """The losses by step."""
    run = LiveRun(folder)
    run.rows, run.asked = [recorded("a", answer, 1.0)], []
    algorithm = SFT.from_section(
        {
            "model": {"path": str(tiny_model), "device": "cpu"},
            "from_live": {"run": "live"},
            "steps": 3,
            "lr": 1e-2,
            "evaluate": {"samples": 1, "greedy": False},
            **section,
        }
    )
    await algorithm.run(run)
    return [run.logged[step]["loss"] for step in (1, 2, 3)], run


async def test_the_policy_learns_to_say_it(tiny_model: Path, tmp_path: Path) -> None:
    losses, run = await trained(tiny_model, tmp_path, "The answer is 7.")
    assert losses[0] > losses[1] > losses[2]
    assert run.asked == [(FromLive(run="live"), 1.0)]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"demonstrations": "a.jsonl"}, "there are demonstrations"),
        (
            {"keep": 2, "group_size": 4},
            r"algorithm\.group_size: has an effect only where nothing is learned from a live",
        ),
        ({"threshold": 0.5, "from_live": {"run": "live", "top": 0.5}}, r"threshold: .* from_live\.top is not given"),
        ({"from_live": {"run": "live", "since": "soon"}}, "since: 'soon': expected"),
        ({"from_live": {"run": "live", "top": 0.0}}, r"algorithm\.from_live\.top"),
    ],
)
def test_what_does_not_go_together_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SFT.from_section({"model": {"path": "any"}, "from_live": {"run": "live"}, **section})


def test_an_algorithm_that_needs_its_own_policys_tokens_refuses_recorded_text() -> None:
    from agentlightning_grpo.algorithm import GRPO

    with pytest.raises(ConfigError, match=r"algorithm\.from_live: GRPO learns from the rollouts of its own run; "):
        GRPO.from_section({"model": {"path": "any"}, "from_live": {"run": "live"}})
