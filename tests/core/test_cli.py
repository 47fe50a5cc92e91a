"""The shell: what its commands show, and how they fail."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from finished_run import RUN, fill, rollout_id, url_in

from agentlightning.cli import main
from agentlightning.cli.app import COMMANDS
from agentlightning.errors import DataError, StoreError

Agl = Callable[..., Result]

OTHER = "calculator-1123-050607-cd34"
FAILED = rollout_id(RUN, "train/2", 0, 3)


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agl:
    """Runs ``agl`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


@pytest.fixture
def two_runs(agl: Agl, tmp_path: Path) -> None:
    asyncio.run(fill(url_in(tmp_path)))
    asyncio.run(fill(url_in(tmp_path), OTHER))


def test_help_lists_every_command(agl: Agl) -> None:
    result = agl("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


def test_help_loads_neither_numpy_nor_the_terminal_library() -> None:
    probe = (
        "import sys; from agentlightning.cli.app import COMMANDS, main\n"
        "for name in COMMANDS: main.get_command(None, name)\n"
        "print([name for name in ('numpy', 'rich', 'msgspec') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "[]"


# Errors.


def test_an_error_of_ours_is_one_line_and_exit_code_2(agl: Agl) -> None:
    result = agl("runs")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: there is no store at runs/agentlightning.db")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_looking_at_a_store_that_is_not_there_makes_none(agl: Agl, tmp_path: Path) -> None:
    agl("runs")
    assert list(tmp_path.iterdir()) == []


def test_debug_lets_the_traceback_through(agl: Agl) -> None:
    assert isinstance(agl("--debug", "runs").exception, StoreError)


def test_an_unexpected_error_is_told_in_one_line_with_its_place(agl: Agl, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def runs() -> None:
        raise LookupError("this is a bug")

    monkeypatch.setattr("agentlightning.cli.commands.runs.runs", runs)
    result = agl("runs")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: LookupError: this is a bug (")
    assert "agl --debug" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_is_exit_code_130(agl: Agl, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def runs() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentlightning.cli.commands.runs.runs", runs)
    assert agl("runs").exit_code == 130


# Runs and rollouts.


def test_runs_shows_each_run_with_its_reward_before_and_after(agl: Agl, two_runs: None) -> None:
    lines = agl("runs").output.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:8] == [RUN, "calculator", "grpo", "succeeded", "4", "0.250", "→", "0.875"]
    assert lines[2].startswith(OTHER)


def test_show_of_a_run_tells_what_came_of_it(agl: Agl, two_runs: None) -> None:
    output = agl("show", RUN).output
    for text in (
        "succeeded",
        "lr: 2.0e-05",
        "47 succeeded, 1 failed",
        "McNemar, exact",
        "0.250",
        "Metrics of the last 4 steps",
        "Latest rollouts (of 48)",
    ):
        assert text in output
    assert [line.split()[:4] for line in output.splitlines() if line.startswith("policy ")] == [
        ["policy", "policy", "4", "5"]
    ]
    failures = {
        line.split()[0]: line for line in output.splitlines() if line.startswith(("tool_error", "rate_limited"))
    }
    assert failures["tool_error"].split()[1:4] == ["agent", "1", "0"]
    assert f"{FAILED}: division by zero" in failures["tool_error"]
    assert failures["rate_limited"].split()[1:4] == ["infrastructure", "0", "1"]


def test_show_of_a_run_names_its_model_its_curve_and_the_commands_to_go_on_with(
    agl: Agl, two_runs: None, tmp_path: Path
) -> None:
    assert "agl serve" not in agl("show", RUN).output
    folder = tmp_path / "runs" / RUN
    (folder / "model").mkdir(parents=True)
    (folder / "curve.png").touch()
    lines = [" ".join(line.split()) for line in agl("show", RUN).output.splitlines()]
    for line in (
        f"model runs/{RUN}/model",
        f"curve runs/{RUN}/curve.png",
        f"serve its model agl serve {RUN}",
        f"evaluate its model agl eval CONFIG --model runs/{RUN}/model",
        f"compare it agl compare-runs {RUN} OTHER",
    ):
        assert line in lines


def test_failed_rollouts_are_listed_with_what_went_in_and_what_came_out(agl: Agl, two_runs: None) -> None:
    lines = [" ".join(line.split()) for line in agl("show", RUN, "--rollouts", "failed").output.splitlines()]
    assert lines[0].startswith(f"rollout {FAILED} ")
    assert lines[1:6] == [
        "task task-0",
        "input What is 0 + 1?",
        'output {"messages": [{"role": "assistant", "content": "1"}]}',
        "failure tool_error (agent): division by zero",
        "at line 3",
    ]
    assert sum(line.startswith("rollout ") for line in lines) == 1


def test_the_best_rollouts_come_first_and_the_rest_is_counted(agl: Agl, two_runs: None) -> None:
    lines = agl("show", RUN, "--rollouts", "best").output.splitlines()
    listed = [line for line in lines if line.startswith("rollout ")]
    assert len(listed) == 20
    assert all("outcome 1," in line for line in listed[:10])
    assert "… and 28 more; `agl export` writes all" in "\n".join(lines)


def test_the_rollouts_of_a_step_are_listed(agl: Agl, two_runs: None) -> None:
    lines = agl("show", RUN, "--rollouts", "step=2").output.splitlines()
    assert sum(line.startswith("rollout ") for line in lines) == 8
    assert "no such rollouts" in agl("show", RUN, "--rollouts", "step=99").output
    result = agl("show", RUN, "--rollouts", "worst")
    assert (result.exit_code, result.stderr) == (2, "error: --rollouts worst: expected failed, best, or step=N\n")


def test_the_beginning_of_an_id_is_enough(agl: Agl, two_runs: None) -> None:
    assert f"run        {RUN}" in agl("show", RUN[:18]).output
    assert f"rollout {FAILED}" in agl("show", FAILED[:9]).output


def test_a_beginning_of_several_ids_is_an_error_that_lists_them(agl: Agl, two_runs: None) -> None:
    result = agl("show", "calc")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: 'calc' is the beginning of 2 ids")
    assert RUN in result.stderr
    assert OTHER in result.stderr


def test_an_unknown_id_is_an_error(agl: Agl, two_runs: None) -> None:
    result = agl("show", "nothing")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: there is no run or rollout 'nothing' in this store; `agl runs` lists the runs\n",
    )


def test_show_of_a_rollout_is_its_tree(agl: Agl, two_runs: None) -> None:
    output = agl("show", FAILED).output
    tree = [line.rstrip() for line in output[output.index("rollout " + FAILED) :].splitlines()]
    assert tree[1:] == [
        "└── agent graph  graph, 0.5 s",
        "    ├── llm chat tiny  agent model, 0.5 s",
        "    │   ├── system  Use the calculator.",
        "    │   ├── user  What is 0 + 1?",
        '    │   ├── → assistant  calls calculator({"expression": "0 + 1"})',
        "    │   └── 10 → 3 tokens (exact), policy v3, mean logprob -0.250 at temperature 1, finished: stop",
        "    ├── tool calculator ✗  agent model, 0.5 s",
        '    │   ├── arguments  {"expression": "0 + 1"}',
        "    │   ├── result  1",
        "    │   ├── tool_error (agent): division by zero",
        "    │   │   at line 3",
        "    │   └── reward tool_used 0.5  of a step",
        "    └── llm chat tiny  agent model, 0.5 s",
        "        ├── … 3 messages as before",
        "        ├── tool  1",
        "        ├── → assistant  1",
        "        └── 15 → 3 tokens (exact), policy v3, mean logprob -0.250 at temperature 1, finished: stop",
        "",
    ]
    for text in ("input      What is 0 + 1?", "expected   1", "numeric_match 0", "policy v3", "failed, 5.0 s"):
        assert text in output


def test_tokens_shows_the_ids(agl: Agl, two_runs: None) -> None:
    assert "response ids" not in agl("show", FAILED).output
    output = agl("show", FAILED, "--tokens").output
    assert "prompt ids  1 2 3 4 5 6 7 8 9 10 21 22 23 31 32" in output
    assert "response ids  21 22 23" in output


def test_a_pipe_gets_no_colours(agl: Agl, two_runs: None) -> None:
    for arguments in (["runs"], ["show", RUN], ["show", FAILED], ["plugins"]):
        assert "\x1b" not in agl(*arguments).output


# Export.


def test_a_rollout_is_a_line_with_its_spans(agl: Agl, two_runs: None, tmp_path: Path) -> None:
    result = agl("export", RUN)
    assert result.output == f"48 rollouts written to {RUN}-rollouts.jsonl\n"
    lines = [json.loads(line) for line in (tmp_path / f"{RUN}-rollouts.jsonl").read_text().splitlines()]
    failed = next(line for line in lines if line["id"] == FAILED)
    assert failed["outcome"] == 0.0
    assert failed["task"] == {"id": "task-0", "input": "What is 0 + 1?", "expected": "1", "metadata": {}}
    assert failed["failure"]["type"] == "tool_error"
    assert [span["kind"] for span in failed["spans"]] == ["agent", "llm", "tool", "reward", "llm"]
    said = failed["spans"][1]["generation"]
    assert (said["response_ids"], said["logprobs"]) == ([21, 22, 23], [-0.25] * 3)
    assert said["temperature"] == 1.0


def test_export_to_standard_output_is_json_lines_alone(agl: Agl, two_runs: None) -> None:
    result = agl("export", RUN, "--what", "spans", "--output", "-")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 48 * 5
    assert (lines[0]["run_id"], lines[0]["purpose"], lines[0]["step"]) == (RUN, "evaluate", 0)
    assert result.stderr == "240 spans written to standard output\n"


def test_transitions_are_in_the_row_they_extend(agl: Agl, two_runs: None) -> None:
    result = agl("export", RUN, "--what", "transitions", "--output", "-")
    first, second = [json.loads(line) for line in result.stdout.splitlines()][:2]
    assert (first["row"], first["start"], first["end"], second["row"], second["start"]) == (0, 10, 13, 0, 15)
    assert second["prompt_ids"][:13] == first["prompt_ids"] + first["response_ids"]
    assert first["outcome"] == 1.0


@pytest.mark.parametrize(("what", "rows"), [("rollouts", 48), ("spans", 240), ("transitions", 96)])
def test_parquet_has_the_same_rows(agl: Agl, two_runs: None, tmp_path: Path, what: str, rows: int) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert agl("export", RUN, "--what", what, "--format", "parquet", "--output", "out/it.parquet").exit_code == 0
    agl("export", RUN, "--what", what, "--output", "it.jsonl")
    table = parquet.read_table(tmp_path / "out" / "it.parquet")
    assert table.num_rows == rows
    lines = [json.loads(line) for line in (tmp_path / "it.jsonl").read_text().splitlines()]
    assert [_undone(row, table.schema) for row in table.to_pylist()] == lines


def _undone(value: object, fields: object) -> object:
    """A row of Parquet with its columns of JSON text read again."""
    if not isinstance(value, dict):
        return value
    row = {}
    for field in fields:  # type: ignore[attr-defined]
        item = value[field.name]
        if item is not None and field.metadata == {b"format": b"json"}:
            item = json.loads(item)
        elif isinstance(item, dict):
            item = _undone(item, field.type)
        elif isinstance(item, list):
            item = [_undone(one, field.type.value_type) for one in item]
        row[field.name] = item
    return row


def test_parquet_without_pyarrow_says_how_to_get_it(
    agl: Agl, two_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = agl("export", RUN, "--format", "parquet", "--output", "it.parquet")
    assert (result.exit_code, result.stderr) == (2, "error: Parquet needs pyarrow: pip install pyarrow\n")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_export_that_cannot_be_written_is_an_error(agl: Agl, two_runs: None) -> None:
    result = agl("export", RUN, "--output", "runs/agentlightning.db/x.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: runs/agentlightning.db/x.jsonl cannot be written: ")


def test_an_export_that_fails_half_way_leaves_what_was_there(
    agl: Agl, two_runs: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise DataError("in the middle")

    (tmp_path / "it.jsonl").write_text("an earlier export")
    monkeypatch.setattr("agentlightning.cli.export.build_rows", fail)
    result = agl("export", RUN, "--what", "transitions", "--output", "it.jsonl")
    assert (result.exit_code, result.stderr) == (2, "error: in the middle\n")
    assert (tmp_path / "it.jsonl").read_text() == "an earlier export"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.jsonl", "runs"]


# Plugins.


def test_plugins_lists_what_is_registered_and_by_whom(agl: Agl) -> None:
    lines = agl("plugins").output.splitlines()
    assert lines[0].split() == ["plugin", "distribution", "version", "registers"]
    (builtin,) = [line for line in lines if line.startswith("builtin ")]
    assert builtin.split() == ["builtin", "agentlightning", "0.1.0", "adapters:", "function"]


def test_plugins_says_why_one_is_broken(agl: Agl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from agentlightning.plugins import Plugins

    (tmp_path / "broken_plugin.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = Plugins([EntryPoint("broken", "broken_plugin", "agentlightning")])
    monkeypatch.setattr("agentlightning.plugins.plugins", lambda: found)
    output = agl("plugins").output
    assert "broken of unknown 0 does not work: ModuleNotFoundError" in output
    assert "a_module_that_is_not_there" in output


def test_a_plugins_command_is_a_command(agl: Agl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from agentlightning.plugins import Plugins

    (tmp_path / "greeting_plugin.py").write_text(
        "import click\n"
        "from agentlightning import hookimpl\n"
        "@click.command()\n"
        "def greet():\n"
        "    '''Say good day.'''\n"
        "    click.echo('good day')\n"
        "@hookimpl\n"
        "def register_commands(register):\n"
        "    register('greet', greet)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = Plugins([EntryPoint("greeting", "greeting_plugin", "agentlightning")])
    monkeypatch.setattr("agentlightning.plugins.plugins", lambda: found)
    assert "Say good day." in agl("--help").output
    assert agl("greet").output == "good day\n"
