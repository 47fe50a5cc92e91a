"""What the first check, the findings and the servers say of several policies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentlightning import semconv
from agentlightning.check import CheckReport, inspect_rollout, render
from agentlightning.diagnostics import findings, troubles
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Generation, Policy, Reward, Rollout, Span, Task
from agentlightning.serving import Servable
from agentlightning.store import Metric
from agentlightning.trainer import FitResult

UNREACHABLE = "http://127.0.0.1:1/v1"
PLANNER = Policy(name="planner", model="tiny", base_url=UNREACHABLE, agents=("planner",))
SOLVER = Policy(name="solver", model="tiny", base_url=UNREACHABLE, agents=("solver*",))


def call(agent: str, policy: str | None, index: int) -> Span:
    """A call of an agent that a policy answered with exact tokens; None: one that went to its own endpoint."""
    ids = np.arange(3, dtype=np.int32) if policy is not None else None
    said = Generation(response={"role": "assistant", "content": "4"}, policy=policy, response_ids=ids)
    attributes = {semconv.SERVER_ADDRESS: "api.openai.com", semconv.SERVER_PORT: 443}
    return Span(
        rollout_id="r", index=index, kind="llm", name="chat", agent=agent, generation=said, attributes=attributes
    )


def checked(*calls: tuple[str, str | None]) -> CheckReport:
    """The report of a first rollout with these calls: agents, and who answered."""
    rollout = Rollout(
        id="r",
        run_id="run",
        group_id="g",
        task_id="t",
        purpose="check",
        status="succeeded",
        rewards=[Reward(name="score", value=1.0)],
    )
    spans = [call(agent, policy, index) for index, (agent, policy) in enumerate(calls)]
    return inspect_rollout(Task(id="t", input=""), rollout, spans, resources=[PLANNER, SOLVER], train=["*"])


def test_the_first_check_knows_the_agents_of_every_policy() -> None:
    report = checked(("planner", "planner"), ("solver-1", "solver"), ("judge", None))
    assert report.ok
    assert [(agent.name, agent.trained, agent.routes[0].to) for agent in report.agents] == [
        ("planner", True, "planner"),
        ("solver-1", True, "solver"),
        ("judge", False, "api.openai.com"),
    ]
    assert report.policies == ["planner", "solver"]
    assert "6 of 6 are the policies' own" in render(report)


def test_a_policy_whose_agents_had_nothing_to_do_in_the_first_rollout_is_a_warning() -> None:
    for calls, idle in (((("planner", "planner"),), "solver*"), ((("solver-1", "solver"),), "planner")):
        report = checked(*calls)
        assert report.ok
        assert any(f"no agent matched {idle} in this rollout" in warning for warning in report.warnings)


def test_a_policy_whose_agents_call_something_else_is_an_error() -> None:
    report = checked(("planner", None), ("solver-1", "solver"))
    assert report.errors == ["no call reached the policy planner: they went to api.openai.com"]
    assert checked(("planner", "solver"), ("solver-1", "solver")).errors


def test_where_no_policy_is_reached_the_agents_that_were_seen_are_named() -> None:
    (error,) = checked(("judge", None)).errors
    assert error == "no agent matches planner, solver*; seen: judge (`algorithm.policies` in the config)"


def test_that_one_policy_learned_nothing_is_said() -> None:
    steps = {"first/optimizer_steps": 1.0, "second/optimizer_steps": 0.0}
    assert troubles(steps) == ["no optimizer step for the policy second"]
    found = findings([Metric(run_id="r", step=1, name=name, value=value, at=0.0) for name, value in steps.items()])
    assert found == ["no optimizer step was made for the policy second: did its agents act, with rewards that differ?"]


def test_the_folder_of_several_models_names_them(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "config.json").touch()
    with pytest.raises(ConfigError, match=r"holds several models; name one of them: .*model/first, .*model/second"):
        Servable.of_folder(tmp_path)


def test_a_result_of_several_models_says_where_they_are() -> None:
    result = FitResult(run_id="r", status="succeeded", results={"model/first": "runs/r/model/first"})
    with pytest.raises(AlgorithmError, match="trained several models; serve one by its folder: runs/r/model/first"):
        result.serve()
