"""The algorithm `eval` with a model: the trained agents call it, and every option of its config changes what is run."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from ways_to_call import WAYS

from agentlightning import FitResult, Trainer
from agentlightning.config import RunnerConfig
from agentlightning.errors import CheckError
from agentlightning.plugins import plugins

Evaluate = Callable[..., FitResult]


@pytest.fixture
def evaluate(stub, policy_stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Evaluate]:
    """Evaluates an agent that asks its own endpoint, ``stub``, with a model that ``policy_stub`` answers for."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(FakeServer, "base_url", policy_stub.base_url)
    monkeypatch.setattr(FakeServer, "made", [])
    monkeypatch.setattr(FakeServer, "closed", 0)
    layer = next(adapter for adapter in plugins().adapters() if adapter.name == "openai")
    layer.uninstall()

    def run(train: str = "*", **options: Any) -> FitResult:
        algorithm = {"name": "eval", "model": {"path": "any"}, "server": "fake_server:FakeServer", **options}
        return Trainer(
            functools.partial(ask, stub.base_url),
            [{"id": "t", "input": "t"}, {"id": "u", "input": "u"}],
            lambda rollout, task: float(len(rollout.output)),
            algorithm,
            held_out=[{"id": name, "input": name} for name in "abc"],
            train=[train],
            store=f"sqlite:///{tmp_path / 'store.db'}",
            directory=tmp_path / "runs",
            runner=RunnerConfig(retries=0, concurrency=1),
        ).fit()

    yield run
    layer.uninstall()


def ask(base_url: str, input: Any) -> str:
    return str(WAYS[0](base_url).choices[0].message.content)


def test_every_call_goes_to_the_model_once_for_each_task_and_variant(evaluate: Evaluate, stub, policy_stub) -> None:
    result = evaluate()
    assert stub.requests == []
    assert Counter(request.json["temperature"] for request in policy_stub.requests) == {1.0: 1 + 3, 0.0: 3}
    assert [(each.step, each.variant, each.mean) for each in result.evaluations] == [
        (0, "sampled", 6.0),
        (0, "greedy", 6.0),
    ]
    assert FakeServer.closed == 1


@pytest.mark.parametrize(
    ("option", "temperatures"),
    [
        ({"temperature": 0.5}, {0.5: 4, 0.0: 3}),
        ({"samples": 2}, {1.0: 7, 0.0: 3}),
        ({"greedy": False}, {1.0: 4}),
    ],
)
def test_every_option_changes_what_is_run(
    evaluate: Evaluate, policy_stub, option: dict[str, Any], temperatures: dict[float, int]
) -> None:
    evaluate(**option)
    assert Counter(request.json["temperature"] for request in policy_stub.requests) == temperatures


def test_the_server_is_told_the_model_and_how_to_serve_it(evaluate: Evaluate) -> None:
    evaluate(model={"path": "x", "dtype": "bfloat16"}, engine={"max_tokens": 7})
    assert FakeServer.made == [({"path": "x", "dtype": "bfloat16"}, {"max_tokens": 7})]


def test_a_model_that_no_call_reaches_is_an_error_and_the_server_ends(evaluate: Evaluate) -> None:
    with pytest.raises(CheckError, match="no agent matches nobody"):
        evaluate(train="nobody")
    assert FakeServer.closed == 1
