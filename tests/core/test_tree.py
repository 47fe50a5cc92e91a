"""A rollout in the terminal, where what was said is not to be trusted."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from agentlightning import semconv
from agentlightning.cli.tree import format_value, rollout_summary, rollout_tree
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Usage

ROLLOUT = Rollout(id="0123", run_id="run", group_id="group", task_id="task", purpose="train", step=1)


def text_of(*spans: Span) -> str:
    console = Console(width=100, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(rollout_tree(ROLLOUT, spans))
    return capture.get()


def span(kind: str, name: str, index: int = 0, **fields: Any) -> Span:
    return Span(rollout_id=ROLLOUT.id, kind=kind, name=name, index=index, **fields)  # type: ignore[arg-type]


def test_control_characters_are_shown_and_not_sent() -> None:
    assert format_value("a\x1b[31mred\x07\r\x9b\x7fz").plain == "a␛[31mred␇␍\ufffd\ufffdz"


def test_markup_in_what_was_said_is_text() -> None:
    said = Generation(messages=[{"role": "user", "content": "[bold]x[/bold] [/nonsense]"}])
    assert "[bold]x[/bold] [/nonsense]" in text_of(span("llm", "chat", generation=said))


def test_long_texts_are_cut_and_counted() -> None:
    assert format_value("x" * 2500).plain.endswith("x … 500 characters more")


def test_values_that_are_no_text_are_json() -> None:
    assert format_value({"a": [1, None]}).plain == '{"a": [1, null]}'


def test_a_span_whose_parent_is_unknown_hangs_under_the_rollout() -> None:
    assert "└── tool lost" in text_of(span("tool", "lost", parent_id="never written"))


def test_a_call_without_tokens_says_what_the_endpoint_counted() -> None:
    said = Generation(model="gpt-x", usage=Usage(input_tokens=7, output_tokens=2))
    assert "7 → 2 tokens (text), gpt-x" in text_of(span("llm", "chat", generation=said))
    assert "? → ? tokens (text)" in text_of(span("llm", "chat", generation=Generation()))


def test_parallel_calls_repeat_only_what_no_call_has_had() -> None:
    start = {"role": "system", "content": "S"}
    first = Generation(messages=[start, {"role": "user", "content": "A"}])
    second = Generation(messages=[start, {"role": "user", "content": "B"}])
    text = text_of(span("llm", "one", 0, generation=first), span("llm", "two", 1, generation=second))
    assert text.count("system  S") == 1
    assert "… 1 message as before" in text
    assert "user  B" in text


def test_retrieval_annotation_and_failure_tell_what_they_hold() -> None:
    text = text_of(
        span("retrieval", "search", 0, attributes={semconv.RETRIEVAL_QUERY: "q", semconv.RETRIEVAL_DOCUMENTS: ["d"]}),
        span("annotation", "plan", 1, attributes={"steps": 3}),
        span("agent", "node", 2, failure=Failure(type="timeout", message="too slow", fault="infrastructure")),
    )
    for line in ("query  q", 'documents  ["d"]', "annotation plan", "steps  3", "timeout (infrastructure): too slow"):
        assert line in text


def test_a_reward_that_cannot_be_told_is_no_zero() -> None:
    rollout = Rollout(
        id="id",
        run_id="run",
        group_id="group",
        task_id="task",
        purpose="train",
        step=1,
        rewards=[Reward(name="judge", value=None, weight=0.5, reason="no answer"), Reward(name="match", value=1.0)],
    )
    lines = [value.plain for name, value in rollout_summary(rollout, None) if name in ("outcome", "")]  # type: ignore[union-attr]
    assert lines == ["cannot be told", "judge cannot be told × 0.5  no answer", "match 1"]


def test_the_outcome_is_told_apart_from_the_rewards_of_steps() -> None:
    rewards = [Reward(name="used", value=0.5, step=True), Reward(name="match", value=1.0)]
    rollout = Rollout(id="id", run_id="run", group_id="group", task_id="task", purpose="train", rewards=rewards)
    summary = {name: value.plain for name, value in rollout_summary(rollout, None) if name}  # type: ignore[union-attr]
    assert (summary["outcome"], summary["total reward"]) == ("1", "1.5")
