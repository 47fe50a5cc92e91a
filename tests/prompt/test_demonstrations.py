"""What of a rollout can be shown, and what cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentlightning import semconv
from agentlightning.errors import DataError
from agentlightning.records import Failure, Generation, Reward, Rollout, Span
from agentlightning_prompt.demonstrations import Reader
from agentlightning_prompt.roles import Role

ROLE = Role(name="solver", agent="solver", text="Solve.", only=True)
SYSTEM = {"role": "system", "content": "Solve."}
OWN = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str | None, *ids: str) -> dict[str, Any]:
    calls = [{"id": id, "type": "function", "function": {"name": "add", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


def result(id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": "7"}


def call(messages: list[dict[str, Any]], answer: dict[str, Any], *, agent: str = "solver", **fields: Any) -> Span:
    generation = Generation(
        messages=[SYSTEM, *messages], response=answer, finish_reason=fields.pop("finish_reason", "stop")
    )
    return Span(rollout_id="r", kind="llm", name="chat", agent=agent, generation=generation, **fields)


def tool(id: str | None, *, fails: bool = False) -> Span:
    attributes = {semconv.TOOL_CALL_RESULT: "7", **({semconv.TOOL_CALL_ID: id} if id is not None else {})}
    failure = Failure(type="tool_error", message="no") if fails else None
    return Span(rollout_id="r", kind="tool", name="add", attributes=attributes, failure=failure)


def rollout(task: str = "t1", outcome: float = 1.0) -> Rollout:
    rewards = [Reward(name="right", value=outcome)]
    return Rollout(
        id=f"r-{task}", run_id="run", group_id=task, task_id=task, purpose="train", status="succeeded", rewards=rewards
    )


def reader(**options: Any) -> Reader:
    return Reader([ROLE], max_characters=options.pop("max_characters", 100), **options)


def test_a_conversation_with_tools_is_shown_whole_and_without_its_system_prompt() -> None:
    asked = [user("3 + 4?")]
    spans = [call(asked, said(None, "c1")), tool("c1"), call([*asked, said(None, "c1"), result("c1")], said("7"))]
    (found,) = reader().read(rollout(), spans)
    assert [message["role"] for message in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert (found.role, found.task_id, found.outcome) == ("solver", "t1", 1.0)


def test_what_the_provider_added_to_an_answer_is_left_out() -> None:
    (found,) = reader().read(rollout(), [call([user("3 + 4?")], {**said("7"), "refusal": None, "annotations": []})])
    assert found.messages == [{"content": "3 + 4?", "role": "user"}, {"content": "7", "role": "assistant"}]


def test_an_agent_that_ends_with_a_tools_result_is_shown_with_it() -> None:
    (found,) = reader().read(rollout(), [call([user("3 + 4?")], said(None, "c1")), tool("c1")])
    assert found.messages[-1] == {"role": "tool", "tool_call_id": "c1", "content": "7"}


LEFT_OUT = {
    "cut off": ([call([user("3 + 4?")], said(None, "c1")), tool("c1"),
                 call([user("3 + 4?"), said(None, "c1"), result("c1")], said("It"), finish_reason="length")],
                "broke off"),
    "a failed tool": ([call([user("3 + 4?")], said(None, "c1")), tool("c1", fails=True),
                       call([user("3 + 4?"), said(None, "c1"), result("c1")], said("7"))], "a tool failed"),
    "no result": ([call([user("3 + 4?")], said(None, "c1"))], "no result follows"),
    "no question": ([call([], said("7"))], "no user's message"),
    "no answer": ([call([user("3 + 4?")], said("  "))], "nobody answers"),
    "too long": ([call([user("3 + 4?")], said("7" * 100))], "max_demonstration_characters, 100"),
    "held out": ([call([user("5 + 5?")], said("10"))], "held-out task"),
}  # fmt: skip


@pytest.mark.parametrize(("spans", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_cannot_be_shown_is_left_out_and_counted(spans: list[Span], why: str) -> None:
    read = reader(never_shown=["5 + 5?"])
    assert read.read(rollout(), spans) == []
    ((reason, count),) = read.left_out.items()
    assert why in reason
    assert count == 1


def test_what_is_written_by_hand_and_asks_what_is_measured_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shown.jsonl"
    written = [json.dumps({"messages": [user(asked), said("10")]}) for asked in ("5 + 5?", "3 + 7?")]
    path.write_text("\n".join(written))
    (found,) = reader(never_shown=["5 + 5?"]).by_hand(str(path))
    assert found.messages[0]["content"] == "3 + 7?"
    assert "1 of 2 demonstrations are left out, as validation or held-out tasks ask the same" in caplog.text
    with pytest.raises(DataError, match=r"no demonstration in .* that can be shown"):
        reader(never_shown=["5 + 5?", "3 + 7?"]).by_hand(str(path))


def test_a_failed_tool_of_another_conversation_harms_nothing() -> None:
    spans = [call([user("3 + 4?")], said("7")), tool("c9", fails=True)]
    assert len(reader().read(rollout(), spans)) == 1


def test_examples_that_the_agent_always_sends_are_no_part_of_a_demonstration() -> None:
    read = reader()
    first, second = (call([*OWN, user(text)], said("7")) for text in ("3 + 4?", "5 + 2?"))
    read.learn_what_is_said_always([(rollout("t1"), [first]), (rollout("t2"), [second])])
    (found,) = read.read(rollout("t1"), [first])
    assert [message["content"] for message in found.messages] == ["3 + 4?", "7"]


def test_what_two_questions_have_in_common_is_not_taken_for_examples_when_one_task_was_seen() -> None:
    read = reader()
    span = call([*OWN, user("3 + 4?")], said("7"))
    read.learn_what_is_said_always([(rollout("t1"), [span]), (rollout("t1"), [span])])
    (found,) = read.read(rollout("t1"), [span])
    assert len(found.messages) == 4


def test_demonstrations_that_a_rollout_ran_with_are_no_part_of_its_own() -> None:
    (found,) = reader().read(rollout(), [call([*OWN, user("3 + 4?")], said("7"))], shown={"solver": [OWN]})
    assert [message["content"] for message in found.messages] == ["3 + 4?", "7"]


def test_the_reward_of_an_agents_own_calls_goes_with_its_conversation() -> None:
    one = rollout(outcome=0.0)
    spans = [call([user("3 + 4?")], said("7"), id="s1"), call([user("x")], said("y"), id="s2")]
    other = call([user("z")], said("z"), id="other", agent="checker")
    one.rewards += [Reward(name="step", value=1.0, span_id="s1"), Reward(name="step", value=0.5, span_id="other")]
    role = msgspec.structs.replace(ROLE, only=False)
    first, second = Reader([role], max_characters=100).read(one, [*spans, other])
    assert (first.outcome, first.step_reward) == (0.0, 1.0)
    assert second.step_reward is None


@pytest.mark.parametrize("on_tool", [True, False], ids=["of the tool", "under no span, after it"])
def test_so_does_that_of_a_tool_which_one_of_them_asked_for(on_tool: bool) -> None:
    one, asked = rollout(outcome=0.0), [user("3 + 4?")]
    first = call(asked, said(None, "c1"), started_at=1.0, ended_at=2.0)
    ran = msgspec.structs.replace(tool("c1"), started_at=3.0, ended_at=4.0)
    last = call([*asked, said(None, "c1"), result("c1")], said("7"), started_at=5.0, ended_at=6.0)
    one.rewards += [Reward(name="step", value=0.5, step=True, span_id=ran.id if on_tool else None, at=4.5)]
    (found,) = reader().read(one, [first, ran, last])
    assert found.step_reward == 0.25


def test_one_given_after_a_call_that_failed_goes_with_the_answer_before_it() -> None:
    one = rollout(outcome=0.0)
    answered = call([user("3 + 4?")], said("7"), started_at=1.0, ended_at=2.0)
    failed = Span(rollout_id="r", kind="llm", name="chat", agent="solver", started_at=3.0, ended_at=4.0)
    failed.generation, failed.failure = Generation(messages=[user("x")]), Failure(type="model_error", message="no")
    one.rewards.append(Reward(name="step", value=0.5, step=True, at=5.0))
    (found,) = reader().read(one, [answered, failed])
    assert found.step_reward == 0.5


def test_each_role_has_its_own_conversations() -> None:
    roles = [Role(name=name, agent=name, text=text, replaces=text) for name, text in (("a", "Solve."), ("b", "Check."))]
    read = Reader(roles, max_characters=100)
    spans = [call([user("3 + 4?")], said("7"), agent="a"), call([user("7?")], said("yes"), agent="b")]
    assert [one.role for one in read.read(rollout(), spans)] == ["a", "b"]


def test_conversations_written_by_hand_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shown.jsonl"
    file.write_text('{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "1?"}, '
                    '{"role": "assistant", "content": "1"}], "agent": "solver"}\n\n', encoding="utf-8")  # fmt: skip
    (found,) = reader().by_hand(str(file))
    assert [message["content"] for message in found.messages] == ["1?", "1"]
    assert found.source == f"{file}:1"


BAD_LINES = {
    "no JSON": ("{", "1: not a chat"),
    "no messages": ("{}", "1: not a chat"),
    "no answer": ('{"messages": [{"role": "user", "content": "1?"}]}', "1: this cannot be shown: nobody answers"),
    "nobody of that name": (
        '{"messages": [], "agent": "critic"}',
        "1: the agent has no role 'critic'; there is solver",
    ),
    "nothing": ("", "there is no demonstration in"),
}


@pytest.mark.parametrize(("line", "why"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "shown.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=why):
        reader().by_hand(str(file))
