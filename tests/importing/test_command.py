"""``agl import``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from importing_files import DATA, Imports, example

from agentlightning.cli import main
from agentlightning.errors import StoreError
from agentlightning.records import Reward
from agentlightning.store import RunRecord


def agl(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["import", "--store", f"sqlite:///{folder}/store.db", "--name", "mine", *arguments])


def test_it_says_what_was_imported_and_what_was_not_read(tmp_path: Path) -> None:
    files = [str(DATA / "langsmith_runs.jsonl"), str(DATA / "openai_finetuning.jsonl")]
    result = agl(tmp_path, *files)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "5 rollouts (16 spans) of langsmith, openai imported",
        "4 rollouts without an outcome: feedback gives one, or --outcome here",
        "not read: 1 trace: it had not ended when it was exported (langsmith_runs.jsonl:1)",
        "not read: 1 line: it has no answer of the assistant that counts (openai_finetuning.jsonl:3)",
        f"live run mine: `agl show mine --store sqlite:///{tmp_path}/store.db`",
    ]
    assert agl(tmp_path, *files, "--strict").exit_code == 1
    shown = CliRunner().invoke(main, ["show", "mine", "--store", f"sqlite:///{tmp_path}/store.db"])
    assert shown.exit_code == 0, shown.output


def test_it_fails_where_nothing_could_be_read(tmp_path: Path) -> None:
    line = '{"object": "chat.completion", "id": "a", "choices": []}'
    (tmp_path / "a.jsonl").write_text(line)
    result = agl(tmp_path, str(tmp_path / "a.jsonl"))
    assert result.exit_code == 1
    assert "not read: 1 line: the messages of its request are not in it" in result.output


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, (), "a.jsonl cannot be read: FileNotFoundError"),
        ('{"some": 1, "thing": 2}', (), "its first records are of no known format (langfuse, langsmith, openai"),
        (
            '{"messages": []}',
            ("--format", "langfus"),
            "importer 'langfus' is not installed; did you mean 'langfuse' or 'langsmith'?",
        ),
        ('{"messages": []}', ("--score", "a=much"), "'a=much': expected NAME or NAME=WEIGHT"),
        ('{"messages": []}', ("--outcome", "nan"), "nan: expected a finite number"),
    ],
    ids=["no file", "no format", "unknown format", "weight", "outcome"],
)
def test_what_is_wrong_is_said_before_anything_is_imported(
    tmp_path: Path, content: str | None, arguments: tuple[str, ...], message: str
) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_text(content)
    result = agl(tmp_path, str(DATA / "langfuse_traces.json"), str(tmp_path / "a.jsonl"), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert agl(tmp_path, str(DATA / "langfuse_traces.json")).output.startswith("3 rollouts (18 spans)")


@pytest.mark.parametrize(
    "files",
    [
        ("langfuse_traces.json",),
        ("langfuse_observations.jsonl", "langfuse_scores.jsonl"),
        ("langsmith_runs.jsonl", "langsmith_feedback.jsonl"),
        ("openai_finetuning.jsonl", "openai_preferences.jsonl", "openai_eval_items.jsonl", "openai_completions.jsonl"),
    ],
    ids=lambda files: files[0].partition("_")[0] if "traces" not in files[0] else "traces",
)
async def test_a_second_import_adds_nothing(imports: Imports, files: tuple[str, ...]) -> None:
    first = await imports.read(*files)
    before = await imports.rollouts()
    again = await imports.read(*files)
    assert (again.rollouts, again.known, again.added_rewards, again.added_spans) == (0, first.rollouts, 0, 0)
    assert await imports.rollouts() == before


async def test_the_same_file_is_in_two_runs_where_both_are_named(imports: Imports) -> None:
    await imports.read("langfuse_traces.json")
    assert (await imports.read("langfuse_traces.json", name="other")).rollouts == 3


async def test_scores_and_spans_that_a_later_export_has_are_added(imports: Imports) -> None:
    observations = example("langfuse_observations.jsonl")
    await imports.read(imports.write("monday.jsonl", *observations[1:]))
    later = await imports.read(imports.write("tuesday.jsonl", observations[0]), "langfuse_scores.jsonl")
    assert (later.rollouts, later.known, later.added_spans, later.added_rewards) == (0, 1, 1, 2)
    rollout, spans = await imports.rollout("blob-1")
    assert [span.kind for span in spans] == ["agent", "llm"]
    assert rollout.outcome == 0.9


async def test_a_score_of_a_trace_that_is_nowhere_is_counted(imports: Imports) -> None:
    await imports.read("langfuse_traces.json")
    (found,) = (await imports.read("langfuse_scores.jsonl")).unread
    assert (found.what, found.count) == ("score", 2)
    assert found.reason == "its trace is neither in these files nor in the run"


async def test_a_score_that_was_changed_since_is_changed_and_feedback_given_here_since_stays(imports: Imports) -> None:
    (trace, *_) = example("langfuse_traces.json")
    await imports.read(imports.write("a.jsonl", trace))
    trace["scores"][0] |= {"value": 0.25, "updatedAt": "2026-03-05T00:00:00Z"}
    await imports.read(imports.write("a.jsonl", trace))
    (rollout,) = await imports.rollouts()
    assert rollout.outcome == 0.25
    await imports.store.add_rewards(rollout.id, 1, [Reward(name="correct", value=0.75)])
    await imports.read(imports.write("a.jsonl", trace))
    assert (await imports.rollouts())[0].outcome == 0.75


async def test_scores_that_are_named_are_rewards_with_their_weight_and_others_annotations(imports: Imports) -> None:
    (trace, *_) = example("langfuse_traces.json")
    trace["scores"].append({**trace["scores"][0], "id": "l", "name": "latency", "value": 12.0})
    await imports.read(imports.write("a.jsonl", trace), scores={"correct": 0.5})
    rollout, spans = await imports.rollout("trace-1")
    assert [(reward.name, reward.weight) for reward in rollout.rewards] == [("correct", 0.5)]
    assert rollout.outcome == 0.5
    assert {span.name: span.attributes.get("gen_ai.evaluation.score.value") for span in spans[-2:]} == {
        "well called": 1.0,
        "latency": 12.0,
    }


async def test_an_outcome_is_given_where_there_is_no_score_and_goes_where_one_comes(imports: Imports) -> None:
    await imports.read("langfuse_observations.jsonl", outcome=1.0)
    assert [rollout.outcome for rollout in await imports.rollouts()] == [1.0, 1.0, 1.0]
    await imports.read("langfuse_scores.jsonl")
    assert [rollout.outcome for rollout in await imports.rollouts()] == [0.9, 0.4, 1.0]


async def test_a_run_that_is_no_live_one_is_left_alone(imports: Imports) -> None:
    await imports.store.open_run(RunRecord(id="mine", name="mine", algorithm="grpo"))
    with pytest.raises(StoreError, match="run mine is a run of grpo, not a live one: import under another name"):
        await imports.read("langfuse_traces.json")


async def test_a_file_is_of_the_format_that_its_first_records_look_like(imports: Imports) -> None:
    for name in ("langfuse_traces.json", "langsmith_runs.jsonl", "openai_eval_items.jsonl"):
        shutil.copy(DATA / name, imports.folder / "export")
        assert set((await imports.read("export")).formats.values()) == {name.partition("_")[0]}
