"""What OpenAI's platform exported, as rollouts."""

from __future__ import annotations

from importing_files import Imports, example, unread

from agentlightning import semconv
from agentlightning.records import Usage


async def test_every_answer_of_an_example_is_a_call_with_what_was_said_before(imports: Imports) -> None:
    await imports.read("openai_finetuning.jsonl")
    (first, _) = await imports.rollouts()
    _, asked, tool, answered = await imports.store.spans(first.id)
    record = example("openai_finetuning.jsonl")[0]
    assert asked.generation.messages == record["messages"][:2]
    assert answered.generation.messages[:2] == record["messages"][:2]
    assert answered.generation.response == record["messages"][-1]
    assert asked.generation.tools == record["tools"]
    assert (tool.name, tool.attributes[semconv.TOOL_CALL_ARGUMENTS], tool.attributes[semconv.TOOL_CALL_RESULT]) == (
        *("calculator", {"expression": "23 + 48"}, "71"),
    )
    assert ((await imports.task(first)).input, first.output, first.outcome) == ("23 + 48?", "The answer is 71.", None)


async def test_an_answer_of_weight_0_is_context_and_no_call(imports: Imports) -> None:
    await imports.read("openai_finetuning.jsonl")
    (_, second) = await imports.rollouts()
    (call,) = await imports.store.spans(second.id)
    assert [message["role"] for message in call.generation.messages] == ["user", "assistant", "user"]
    assert all("weight" not in message for message in [*call.generation.messages, call.generation.response])


async def test_a_pair_of_preferences_is_two_rollouts_of_a_group_with_rewards_1_and_0(imports: Imports) -> None:
    await imports.read("openai_preferences.jsonl")
    preferred, other = await imports.rollouts()
    assert preferred.group_id == other.group_id
    assert (preferred.outcome, other.outcome) == (1.0, 0.0)
    assert preferred.output.startswith("Today in San Francisco")


async def test_an_evaluations_results_are_rewards(imports: Imports) -> None:
    await imports.read("openai_eval_items.jsonl")
    right, wrong = await imports.rollouts()
    assert [(reward.name, reward.value, reward.reason) for reward in right.rewards] == [
        ("exact", 1.0, "string-check-grader")
    ]
    assert wrong.outcome == 0.0
    (call,) = await imports.store.spans(wrong.id)
    assert (call.generation.finish_reason, call.generation.usage) == ("length", Usage(input_tokens=14, output_tokens=1))
    assert call.started_at == 1772400001.0


async def test_each_choice_of_a_stored_completion_is_an_answer(imports: Imports) -> None:
    await imports.read("openai_completions.jsonl")
    (rollout,) = await imports.rollouts()
    _, first, second = await imports.store.spans(rollout.id)
    assert first.generation.messages == [{"role": "user", "content": "write a haiku about ai"}]
    assert (first.generation.response["content"], second.generation.response["content"]) == (
        *("Mind of circuits hum.", "Silent code awakes."),
    )
    assert (first.generation.usage.output_tokens, second.generation.usage) == (18, None)


async def test_a_line_that_is_no_whole_chat_is_counted_with_its_reason(imports: Imports) -> None:
    (good, *_) = example("openai_finetuning.jsonl")
    batch = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}}
    lines = imports.write("a.jsonl", good, good, batch, {"messages": [{"what": 1}]}, {"prompt": "a", "completion": "b"})
    imported = await imports.read("openai_completions.jsonl", "openai_finetuning.jsonl", lines)
    assert unread(imported) == {
        "line: it is there twice": 2,
        "line: the messages of its request are not in it: put them under `messages`": 1,
        "line: it has no answer of the assistant that counts": 1,
        "line: it is of the Batch API, which keeps requests and answers apart: join them to stored completions": 1,
        "line: what should be messages are none": 1,
        "line: it has neither messages nor a preferred_output": 1,
    }
    assert imported.rollouts == 3
