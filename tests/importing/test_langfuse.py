"""What Langfuse exported, as rollouts."""

from __future__ import annotations

import copy
import json
from typing import Any

from importing_files import Imports, example, outline, unread

from agentlightning import semconv
from agentlightning.records import Usage


async def test_a_trace_is_a_rollout_with_its_tree_agent_and_order(imports: Imports) -> None:
    imported = await imports.read("langfuse_traces.json")
    assert (imported.rollouts, imported.scored, imported.unread) == (3, 3, [])
    rollout, spans = await imports.rollout("trace-1")
    assert outline(spans)[:5] == [
        "agent solver [solver]",
        "  llm OpenAI-generation [solver]",
        "  tool calculator [solver]",
        "  llm OpenAI-generation [solver]",
        "  annotation feedback-asked [solver]",
    ]
    assert (rollout.status, rollout.output, rollout.purpose) == ("succeeded", "The answer is 71.", "observe")
    assert (await imports.task(rollout)).input == {"question": "What is 23 + 48?"}
    assert [span.index for span in spans] == list(range(6))
    assert rollout.ended_at == 1772359202.0


async def test_a_generation_has_messages_tools_response_usage_and_parameters(imports: Imports) -> None:
    await imports.read("langfuse_traces.json")
    _, spans = await imports.rollout("trace-1")
    asked, answered = (span.generation for span in spans if span.generation is not None)
    assert [message["role"] for message in asked.messages] == ["system", "user"]
    assert asked.tools[0]["function"]["name"] == "calculator"
    assert asked.response["tool_calls"][0]["function"]["name"] == "calculator"
    assert (asked.model, asked.finish_reason, asked.temperature) == ("gpt-4o-mini-2024-07-18", "tool_calls", 0.2)
    assert asked.usage == Usage(input_tokens=80, output_tokens=12)  # cached ones included
    assert answered.messages == [*asked.messages, asked.response, answered.messages[-1]]
    assert (asked.provenance, asked.prompt_ids) == ("text", None)


async def test_a_score_of_the_trace_is_the_outcome_and_one_of_an_observation_a_step(imports: Imports) -> None:
    await imports.read("langfuse_traces.json")
    rollout, spans = await imports.rollout("trace-1")
    correct, called = rollout.rewards
    assert (correct.name, correct.value, correct.step, correct.reason) == ("correct", 1.0, False, "ANNOTATION: right")
    assert (called.step, called.span_id) == (True, spans[2].id)
    assert rollout.outcome == 1.0


async def test_a_score_with_a_label_is_kept_and_is_no_reward(imports: Imports) -> None:
    await imports.read("langfuse_traces.json")
    _, spans = await imports.rollout("trace-1")
    assert spans[-1].kind == "annotation"
    assert spans[-1].attributes["gen_ai.evaluation.score.label"] == "polite"
    assert semconv.EVALUATION_SCORE not in spans[-1].attributes


async def test_several_scores_of_one_name_are_one_reward_with_their_mean(imports: Imports) -> None:
    (trace, *_) = example("langfuse_traces.json")
    trace["scores"].append({**trace["scores"][0], "id": "other", "value": 0.5, "comment": "not quite"})
    await imports.read(imports.write("a.jsonl", trace))
    (rollout,) = await imports.rollouts()
    assert rollout.rewards[0].value == 0.75
    assert rollout.rewards[0].reason == "the mean of 2; ANNOTATION: right; ANNOTATION: not quite"


async def test_rows_of_blob_storage_are_put_together_with_their_scores(imports: Imports) -> None:
    imported = await imports.read("langfuse_observations.jsonl", "langfuse_scores.jsonl")
    assert (imported.rollouts, imported.unread) == (3, [])
    rollout, spans = await imports.rollout("blob-1")
    assert outline(spans) == ["agent assist [assist]", "  llm chat [assist]"]
    assert (rollout.output, rollout.outcome) == ("Yes.", 0.9)
    assert spans[1].generation.messages == [{"role": "user", "content": "Is Paris in France?"}]
    assert [tool["function"]["name"] for tool in spans[1].generation.tools] == ["lookup"]


async def test_a_csv_says_the_same_as_the_jsonl(imports: Imports) -> None:
    await imports.read("langfuse_observations.csv")
    rollout, spans = await imports.rollout("blob-1")
    await imports.read("langfuse_observations.jsonl", name="other")
    other = next(one for one in await imports.store.rollouts("other") if one.output == rollout.output)
    those = await imports.store.spans(other.id)
    assert [(span.name, span.started_at, span.generation) for span in spans] == [
        (span.name, span.started_at, span.generation) for span in those
    ]


async def test_what_broke_a_call_is_typed_and_not_the_agents_fault(imports: Imports) -> None:
    await imports.read("langfuse_observations.jsonl")
    rollout, _ = await imports.rollout("blob-3")
    assert (rollout.status, rollout.failure.type, rollout.failure.fault) == (
        *("failed", "rate_limited", "infrastructure"),
    )
    assert rollout.failure.exception == "RateLimitError"


async def test_a_trace_of_several_roots_has_a_span_around_them(imports: Imports) -> None:
    (trace, *_) = example("langfuse_traces.json")
    trace["observations"] = [
        {**one, "parentObservationId": None} for one in trace["observations"] if one["id"][-1] in "bd"
    ]
    trace["scores"] = []
    await imports.read(imports.write("a.jsonl", trace))
    _, spans = await imports.rollout("trace-1")
    assert outline(spans) == [
        "agent calculate [calculate]",
        "  llm OpenAI-generation [calculate]",
        "  llm OpenAI-generation [calculate]",
    ]


async def test_definitions_of_tools_among_the_messages_are_tools(imports: Imports) -> None:
    """As Langfuse's handler for LangChain writes them."""
    (trace, *_) = example("langfuse_traces.json")
    generation = trace["observations"][0]
    messages, tools = generation["input"]["messages"], generation["input"]["tools"]
    generation["input"] = [*messages, {"role": "tool", "content": tools[0]}]
    await imports.read(imports.write("a.jsonl", trace))
    _, spans = await imports.rollout("trace-1")
    assert (spans[1].generation.messages, spans[1].generation.tools) == (messages, tools)


def broken() -> tuple[list[Any], dict[str, int]]:
    """Records that cannot be read whole, and how often each reason is to be told."""
    (trace, *_) = example("langfuse_traces.json")
    good = copy.deepcopy(trace)
    generation = trace["observations"][0]
    trace["id"] = "odd"
    trace["observations"] += [
        {**generation, "id": None},
        {**generation, "id": "orphan", "parentObservationId": "nowhere"},
        {**generation, "id": "shape", "input": 12},
        {**generation, "id": "later", "startTime": "yesterday"},
    ]
    trace["scores"] += [
        {**trace["scores"][0], "observationId": "nowhere"},
        {**trace["scores"][0], "value": None},
        {**trace["scores"][0], "name": ""},
    ]
    listed = {"id": "listed", "timestamp": "2026-03-01T10:00:00Z", "observations": ["x", "y"], "scores": []}
    loose = {**generation, "traceId": None}
    expected = {
        "observation: it has no id": 1,
        "observation: what it is under is not in these files: it stands at the top": 1,
        "generation: its input is in no shape of messages: kept as it is": 1,
        "observation: it has no time at which it began: its trace's is taken": 1,
        "score: the observation that it is of is not in its trace": 1,
        "score: it has no number and no label": 1,
        "score: it has no name": 1,
        "observation: its trace names it, and it is not in these files": 2,
        "observation: it has no trace id": 1,
        "record: it is no trace, no observation and no score of Langfuse": 1,
        "record: it is no JSON object": 1,
        "line: it is no JSON: Input data was truncated": 1,
    }
    return [good, trace, listed, loose, {"what": "else"}, 12, '{"id": "cut'], expected


async def test_whatever_cannot_be_read_is_counted_with_its_reason_and_the_rest_is_read(imports: Imports) -> None:
    records, expected = broken()
    imported = await imports.read(imports.write("a.jsonl", *records))
    assert unread(imported) == expected
    assert imported.rollouts == 3
    _, spans = await imports.rollout("odd")
    assert sum(span.generation is not None for span in spans) == 5
    whole, _ = await imports.rollout("trace-1")
    assert whole.outcome == 1.0
    assert next(one for one in imported.unread if one.what == "line").first == "a.jsonl:7"


async def test_a_secret_in_metadata_is_kept_nowhere(imports: Imports) -> None:
    (trace, *_) = example("langfuse_traces.json")
    secret = "s3cr3t-value-0123456789"
    trace["metadata"] = {"api_key": secret}
    trace["observations"][1]["metadata"] = {"password": secret}
    trace["observations"][3]["output"]["content"] = f"Your key is {secret}."
    await imports.read(imports.write("a.jsonl", trace))
    rollout, spans = await imports.rollout("trace-1")
    text = json.dumps([str(span) for span in spans]) + str(rollout)
    assert secret not in text
    assert "Your key is [redacted]." in text
