"""Every key of a judge changes what is asked, or what comes of it, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from judge.scripted import Seen, judge, make, rollouts
from stub_answers import Answer, Received, error, text
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.errors import ConfigError
from agentlightning.records import Span
from agentlightning_judge.config import JudgeConfig, JudgeModelConfig

OUTPUTS = ("4", "four", "it is four", "x" * 300)
CHANGED: dict[str, tuple[dict[str, Any], Any]] = {
    "rubric": ({}, ["The answer is short.", "The answer is polite."]),
    "mode": ({}, "pairwise"),
    "scale": ({}, [0, 20]),
    "samples": ({}, 2),
    "at_once": ({}, 3),
    "opponents": ({"mode": "pairwise"}, 2),
    "scores": ({"mode": "pairwise"}, "win_rate"),
    "show": ({}, "transcript"),
    "show_expected": ({}, True),
    "max_characters": ({}, 100),
    "retries": ({}, 0),
    "cache": ({}, None),
    "model.model": ({}, "other"),
    "model.base_url": ({}, "http://127.0.0.1:9/v1"),
    "model.api_key_env": ({}, "JUDGE_KEY"),
    "model.temperature": ({}, 0.5),
    "model.max_tokens": ({}, 64),
    "model.timeout": ({}, 7.0),
    "model.retries": ({}, 0),
    "model.input_price": ({}, 1.0),
    "model.output_price": ({}, 1.0),
}
"""What else is set with a key, and its other value."""
ELSEWHERE = {
    "concurrency": "tests/judge/test_replies.py: it changes how many calls run at once, and no reply",
    "model": "each of its keys by itself",
}


async def measure(stub: StubServer, folder: Path, options: dict[str, Any]) -> str:
    """All that is asked about a group, twice, and about a lone rollout; and the rewards."""
    stub.clear()
    if options.get("mode") != "pairwise":  # there which of many questions comes first is chance
        stub.reply(error(500, retry_after_ms="1"), text("garbage"))
    stub.reply(answer)
    flat = {key: value for key, value in options.items() if not key.startswith("model.")}
    model = {key.removeprefix("model."): value for key, value in options.items() if key.startswith("model.")}
    served = {"cache": str(folder / "cache"), "concurrency": 1, "model": {"retries": 1, **model}}
    one = make(stub.base_url, **{**served, **flat})
    spans = [[Span(rollout_id="r", kind="tool", name="add", attributes={semconv.TOOL_NAME: "add"})] for _ in OUTPUTS]
    rewards = []
    for given in (rollouts(*OUTPUTS), rollouts(*OUTPUTS), rollouts("4")):
        rewards += await judge(one, given, spans=spans[: len(given)])
    asked = sorted(
        (request.body, request.header("authorization") or "", request.header("x-stainless-read-timeout") or "")
        for request in stub.requests
    )
    return repr((asked, [(reward.value, reward.reason, sorted(reward.metrics.items())) for reward in rewards]))


def answer(request: Received) -> Answer:
    seen = Seen(request)
    order = sorted(seen.candidates, key=lambda letter: len(seen.candidates[letter]))
    return text(seen.verdict(ranking=order, better=order[0], score=2))


def keys() -> list[str]:
    own = [field.encode_name for field in msgspec.structs.fields(JudgeConfig)]
    return [*own, *(f"model.{field.encode_name}" for field in msgspec.structs.fields(JudgeModelConfig))]


def test_every_key_is_looked_at() -> None:
    assert sorted(keys()) == sorted([*CHANGED, *ELSEWHERE])


@pytest.fixture(scope="module")
def measured() -> dict[str, str]:
    """What was measured without the key, by what else is set."""
    return {}


@pytest.mark.parametrize("key", CHANGED)
async def test_a_key_has_an_effect(
    stub: StubServer, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch, measured: dict[str, str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "another-key")
    beside, value = CHANGED[key]
    if repr(beside) not in measured:
        measured[repr(beside)] = await measure(stub, tmp_path / "base", beside)
        again = await measure(stub, tmp_path / "again", beside)
        assert again == measured[repr(beside)], "what is measured is no noise"
    assert await measure(stub, tmp_path / "changed", {**beside, key: value}) != measured[repr(beside)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_once": 4, "mode": "pairwise"}, "judge.at_once: has an effect only where mode is relative"),
        ({"opponents": 4}, "judge.opponents: has an effect only where mode is pairwise"),
        ({"scores": "win_rate"}, "judge.scores: has an effect only where mode is pairwise"),
        ({"samples": 3, "mode": "absolute"}, "judge.samples: has an effect only where model.temperature is above 0"),
        ({"samples": 3, "mode": "pairwise"}, "judge.samples: has an effect only where model.temperature is above 0"),
        ({"rubric": ""}, "judge: rubric: expected a text"),
        ({"rubric": []}, "judge: rubric: expected a text"),
        ({"rubric": ["good", " "]}, "judge: rubric: expected a text"),
        ({"scale": [5, 5]}, "judge: scale: expected"),
        ({"scale": [10, 1]}, "judge: scale: expected"),
        ({"scale": [1, float("inf")]}, "expected a finite number"),
        ({"at_once": 27}, "at_once"),
        ({"mode": "relativ"}, "mode"),
        ({"rubrik": "x"}, "did you mean rubric"),
        ({"model": {"temprature": 1}}, "did you mean temperature"),
    ],
)
def test_what_makes_no_sense_is_refused(stub: StubServer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make(stub.base_url, **options)
    assert message in str(refused.value)
