"""What LangSmith exported, as rollouts."""

from __future__ import annotations

from importing_files import Imports, example, outline, unread

from agentlightning import semconv
from agentlightning.records import Usage

FAUST, WRAPPED, FAILED = (f"00000000-0000-4000-8000-{number:012d}" for number in (1, 20, 30))


async def test_a_trace_is_a_rollout_however_its_runs_are_ordered(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    rollout, spans = await imports.rollout(FAUST)
    assert outline(spans)[:7] == [
        "agent librarian [librarian]",
        "  agent agent [librarian]",
        "    llm ChatOpenAI [librarian]",
        "  agent tools [librarian]",
        "    tool search [librarian]",
        "  agent agent [librarian]",
        "    llm ChatOpenAI [librarian]",
    ]
    assert rollout.output["messages"][-1]["content"] == "Goethe wrote Faust."
    assert spans[0].attributes[semconv.CONVERSATION_ID] == "thread-7"


async def test_messages_in_langchains_serialisation_are_chat_messages(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    _, spans = await imports.rollout(FAUST)
    first, last = (span.generation for span in spans if span.generation is not None)
    call = {"name": "search", "arguments": '{"query":"Faust author"}'}
    assert first.messages == [{"role": "user", "content": "Who wrote Faust?"}]
    assert first.response == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_s", "type": "function", "function": call}],
    }
    assert last.messages[1:] == [
        first.response,
        {"role": "tool", "content": "Johann Wolfgang von Goethe", "name": "search", "tool_call_id": "call_s"},
    ]
    assert (first.model, first.finish_reason, first.usage) == (
        *("gpt-4o-2024-08-06", "tool_calls"),
        Usage(input_tokens=30, output_tokens=9),
    )
    assert [tool["function"]["name"] for tool in last.tools] == ["search"]


async def test_a_tool_has_its_arguments_its_call_and_its_result(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    _, spans = await imports.rollout(FAUST)
    (tool,) = (span for span in spans if span.kind == "tool")
    assert tool.attributes[semconv.TOOL_CALL_ARGUMENTS] == {"query": "Faust author"}
    assert tool.attributes[semconv.TOOL_CALL_ID] == "call_s"
    assert tool.attributes[semconv.TOOL_CALL_RESULT] == "Johann Wolfgang von Goethe"


async def test_a_call_of_the_wrapped_openai_client_alone_is_a_rollout(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    rollout, (call,) = await imports.rollout(WRAPPED)
    assert [message["role"] for message in call.generation.messages] == ["system", "user"]
    assert (rollout.output, (await imports.task(rollout)).input) == ("4", "2 + 2?")
    assert (call.generation.temperature, call.generation.usage.input_tokens) == (0.5, 14)


async def test_feedback_stats_are_rewards_where_there_are_no_records_of_feedback(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    rollout, spans = await imports.rollout(FAUST)
    (reward,) = rollout.rewards
    assert (reward.name, reward.value) == ("correctness", 0.5)
    assert reward.reason == "api: the mean of 2; one of two said so"
    assert spans[-1].attributes["gen_ai.evaluation.score.label"] == "terse"


async def test_feedback_counts_before_its_sum_and_on_a_run_within_it_is_a_step(imports: Imports) -> None:
    await imports.read("langsmith_feedback.jsonl", "langsmith_runs.jsonl")
    rollout, spans = await imports.rollout(FAUST)
    whole, step = sorted(rollout.rewards, key=lambda reward: reward.step)
    assert (whole.name, whole.value, whole.reason) == ("correctness", 1.0, "app: Goethe it is")
    assert (step.name, step.value) == ("good query", 0.5)
    assert next(span.name for span in spans if span.id == step.span_id) == "search"


async def test_a_failure_that_came_up_from_a_call_is_that_of_the_call(imports: Imports) -> None:
    await imports.read("langsmith_runs.jsonl")
    rollout, spans = await imports.rollout(FAILED)
    assert outline(spans) == ["agent librarian [librarian] !agent_error", "  llm ChatOpenAI [librarian] !rate_limited"]
    assert (rollout.status, rollout.failure.type, rollout.failure.fault) == (
        *("failed", "rate_limited", "infrastructure"),
    )
    assert "Traceback" not in rollout.failure.message
    assert rollout.failure.traceback.startswith("Traceback")


async def test_an_interrupt_of_a_graph_is_no_failure(imports: Imports) -> None:
    (run,) = [run for run in example("langsmith_runs.jsonl") if run["id"] == WRAPPED]
    await imports.read(
        imports.write("a.jsonl", {**run, "run_type": "chain", "error": "GraphInterrupt((Interrupt(…),))"})
    )
    rollout, spans = await imports.rollout(WRAPPED)
    assert (rollout.status, spans[0].attributes[semconv.INTERRUPTED]) == ("succeeded", True)


async def test_runs_nested_under_their_parent_are_read(imports: Imports) -> None:
    runs = {run["id"]: run for run in example("langsmith_runs.jsonl") if run["trace_id"] == FAUST}
    for run in runs.values():
        runs.get(run.pop("parent_run_id"), {}).setdefault("child_runs", []).append(run)
    await imports.read(imports.write("a.jsonl", runs[FAUST]))
    _, spans = await imports.rollout(FAUST)
    assert [span.kind for span in spans[:7]] == ["agent", "agent", "llm", "agent", "tool", "agent", "llm"]


async def test_whatever_cannot_be_read_is_counted_with_its_reason(imports: Imports) -> None:
    run = next(run for run in example("langsmith_runs.jsonl") if run["id"] == WRAPPED)
    feedback = example("langsmith_feedback.jsonl")[0]
    odd = {
        **run,
        "id": "odd",
        "trace_id": "odd",
        "run_type": "sandbox",
        "start_time": None,
        "feedback_stats": {"a": {"avg": None}},
    }
    shapeless = {**run, "id": "shapeless", "trace_id": "shapeless", "inputs": {"question": "?"}}
    imported = await imports.read(
        imports.write("a.jsonl", odd, shapeless, {"what": "else"}, feedback, {**feedback, "score": None}),
        "langsmith_runs.jsonl",
    )
    assert unread(imported) == {
        "run: its run_type 'sandbox' is none: kept as an annotation": 1,
        "run: it has no time at which it began: its trace's is taken": 1,
        "feedback: it has no score and no value": 2,
        "llm run: its inputs are in no shape of messages: kept as they are": 1,
        "record: it is no run and no feedback of LangSmith": 1,
        "trace: it had not ended when it was exported": 1,
    }
    assert imported.rollouts == 5
