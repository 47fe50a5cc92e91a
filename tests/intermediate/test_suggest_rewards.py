"""``agl suggest-rewards``: what is planted in a run is found, what is not is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from finished_run import url_in
from intermediate import noted_run
from intermediate.noted_run import RUN, Play, write
from intermediate.spans import a_rollout

from agentlightning.cli import main
from agentlightning.config import decode_section
from agentlightning.records import Reward
from agentlightning_intermediate.reward import Intermediate, IntermediateConfig
from agentlightning_intermediate.statistics import contrasts, holm, permutation_p
from agentlightning_intermediate.suggestion import Sighting, sighting

Agl = Callable[..., Result]


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agl:
    """Runs ``agl`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def suggested(agl: Agl, tmp_path: Path, play: Play, *options: str, **about: Any) -> str:
    """What the command says of a run whose rollouts were played so."""
    asyncio.run(write(url_in(tmp_path), play, **about))
    result = agl("suggest-rewards", RUN, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def row(output: str, name: str) -> list[str]:
    """The cells of the first row of a table that begins with a name."""
    line = next(line for line in output.splitlines() if line.startswith(f"{name} "))
    return line[len(name) :].split()


def test_a_signal_that_goes_with_failure_is_found_and_suggested(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted)

    assert output.startswith("noted-run: 96 training rollouts with an outcome, in 16 groups\n")
    assert "With failure go: tool_error.\n" in output
    (entry,) = yaml.safe_load(output[output.index("\nreward:") :])["reward"]
    assert (entry["name"], list(entry["config"]["signals"])) == ("intermediate", ["tool_error"])
    assert -0.6 < entry["config"]["signals"]["tool_error"] < -0.1
    Intermediate(decode_section(entry["config"], IntermediateConfig))


def test_what_only_hard_tasks_have_is_not_taken_for_a_cause(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted)

    count, rollouts, groups, effect, interval, p = row(output, "tool_repeated")
    assert (int(count), int(rollouts), groups, effect, interval, p) == (48, 48, "0", "–", "–", "–")


def test_the_table_has_the_effect_its_interval_and_the_corrected_p(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted)

    _, rollouts, groups, effect, low, _, high, p = row(output, "tool_error")
    assert 30 < int(rollouts) < 66
    assert int(groups) > 10
    assert float(low) < float(effect) < float(high) < 0
    assert float(p) < 0.05
    assert row(output, "model calls")[0] == "8"


def test_chance_alone_suggests_nothing(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.noise)

    assert "No signal goes with failure or with success (p < 0.05, corrected for 2 tests)." in output
    assert "reward:" not in output


def test_over_many_runs_of_chance_alone_something_is_found_no_more_often_than_alpha() -> None:
    """60 runs: 3 are expected to find something, and 7 are exceeded once in a hundred times."""
    rng = np.random.default_rng(0)
    names, finding = ["tool_error", "answer_cut_off"], 0
    for _ in range(60):
        seen = [played_sighting(group, rng, names) for group in range(8) for _ in range(6)]
        groups = np.array([int(one.group) for one in seen])
        outcomes = np.array([one.outcome for one in seen])
        present = np.array([[one.signals[name] > 0 for name in names] for one in seen])
        p = permutation_p(contrasts(present, groups), outcomes, groups)
        finding += min(holm(p.tolist())) < 0.05
    assert finding <= 7


def played_sighting(group: int, rng: np.random.Generator, names: list[str]) -> Sighting:
    played = noted_run.noise("r", False, rng)
    rollout = a_rollout(group_id=str(group), rewards=[Reward(name="right", value=played.outcome)])
    return sighting(rollout, played.recording.spans, names)


def test_what_comes_only_at_the_end_is_named_and_not_suggested_as_a_potential(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.cut_off)

    assert "With failure go: answer_cut_off.\n" in output
    assert "Only at the end of rollouts, where a potential is 0, came: answer_cut_off." in output
    assert "reward:" not in output


def test_what_goes_with_success_is_named_and_not_suggested(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.lucky)

    assert "With success go: tool_repeated. Nothing is suggested for that." in output
    assert "reward:" not in output


def test_too_few_rollouts_are_said_to_be_too_few(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted, groups=2, size=3)

    assert "Too few rollouts: no signal tells those of a group apart in 5 groups or more" in output
    assert "reward:" not in output


def test_only_training_rollouts_count(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted, groups=2, purpose="evaluate")

    assert output == "noted-run: there is no training rollout with an outcome\n"


def test_a_limit_takes_the_last_rollouts(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted, "--limit", "12")

    assert output.startswith("noted-run: the last 12 of 96 training rollouts with an outcome, in 2 groups\n")


def test_the_level_decides(agl: Agl, tmp_path: Path) -> None:
    output = suggested(agl, tmp_path, noted_run.planted, "--alpha", "0.000001")

    assert "(p < 1e-06, corrected for 2 tests)" in output


def test_the_same_run_is_told_the_same_twice(agl: Agl, tmp_path: Path) -> None:
    first = suggested(agl, tmp_path, noted_run.planted)

    assert agl("suggest-rewards", RUN).stdout == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "there is no run 'nowhere'"),
        ((RUN, "--alpha", "nan"), "expected a number between 0 and 1"),
        ((RUN, "--alpha", "1"), "expected a number between 0 and 1"),
        ((RUN, "--limit", "0"), "--limit"),
    ],
)
def test_a_wrong_command_line_is_said_to_be_wrong(
    agl: Agl, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    asyncio.run(write(url_in(tmp_path), noted_run.planted, groups=1))
    result = agl("suggest-rewards", *arguments)

    assert (result.exit_code, message in result.stderr) == (2, True)
