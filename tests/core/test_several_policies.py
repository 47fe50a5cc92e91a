"""Several policies in one run: each answers its own agents, and learns from their calls alone, by its own credit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from drawn_run import DrawnRun, group
from interrupted import Interrupted
from stub_server import StubServer

from agentlightning import PolicyGradient, Trainer, span
from agentlightning.credit import Branch, Credit
from agentlightning.errors import AlgorithmError, ConfigError, PluginError
from agentlightning.records import Rollout, Task
from agentlightning.store import open_store
from agentlightning.store.base import Metric
from agentlightning.training_rows import Group

TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(4)]
POLICIES = {"first": {"agents": ["first"]}, "second": {"agents": ["second"]}}
SECTION: dict[str, Any] = {
    "backend": "bandit:BanditBackend",
    "answers": ["heads", "tails"],
    "lr": 2.0,
    "steps": 3,
    "batch_tasks": 2,
    "group_size": 8,
    "checkpoint_every": 1,
    "policies": POLICIES,
}
UNREACHABLE = "http://127.0.0.1:1/v1"


class Plain(PolicyGradient):
    """What the base does by itself."""


class Nothing(Credit):
    """Finds nothing better than anything else."""

    def assign(self, groups: Sequence[Group]) -> None:
        for one in groups:
            for member in one.rollouts:
                member.set_advantage(0.0)


class Looks(Nothing):
    """Says of how many rollouts it saw how many rows, and of how many policies these were."""

    def assign(self, groups: Sequence[Group]) -> dict[str, float]:
        super().assign(groups)
        rows = [row for one in groups for row in one.rows]
        return {
            "seen_rollouts": sum(len(one.rollouts) for one in groups),
            "seen_rows": len(rows),
            "seen_policies": len({row.policy for row in rows}),
        }


def ask(name: str, base_url: str = UNREACHABLE) -> str | None:
    """What the agent of this name is answered."""
    asked: Any = [{"role": "user", "content": "heads or tails?"}]
    with (
        span(name, kind="agent", agent=name),
        openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as client,
    ):
        return client.chat.completions.create(model="any", messages=asked).choices[0].message.content


def both(question: str) -> dict[str, str | None]:
    return {name: ask(name) for name in ("first", "second")}


def only_second(question: str) -> dict[str, str | None]:
    return {"second": ask("second")}


def heads_and_tails(rollout: Rollout, task: Task) -> float:
    wanted = {"first": "heads", "second": "tails"}
    return sum(answer == wanted[agent] for agent, answer in rollout.output.items())


def train(folder: Path, *, agent: Any = both, algorithm: Any = Plain, train: Any = ("*",), **fields: Any) -> Trainer:
    return Trainer(
        agent,
        TASKS,
        heads_and_tails,
        {"name": f"{__name__}:{algorithm.__name__}", **SECTION, **fields},
        held_out=TASKS[:1],
        train=train,
        store=f"sqlite:///{folder}/store.db",
        directory=folder / "runs",
        name="several",
    )


def preferences(folder: str | Path) -> list[float]:
    """For heads, for tails, and the version."""
    return list(np.load(Path(folder) / "preferences.npy"))


def metrics(folder: Path, run_id: str) -> list[Metric]:
    async def read() -> list[Metric]:
        store = open_store(f"sqlite:///{folder}/store.db")
        try:
            return list(await store.metrics(run_id))
        finally:
            await store.close()

    return asyncio.run(read())


def test_each_policy_learns_what_its_own_agent_is_rewarded_for(tmp_path: Path) -> None:
    result = train(tmp_path, steps=6).fit()
    assert set(result.results) == {"model/first", "model/second"}
    first, second = (preferences(result.results[f"model/{name}"]) for name in POLICIES)
    assert first[0] > 0 > first[1]
    assert second[1] > 0 > second[0]


def test_a_policy_whose_agent_does_not_act_stays_as_it_is(tmp_path: Path) -> None:
    result = train(tmp_path, agent=only_second).fit()
    assert preferences(result.results["model/second"])[1] > 0
    assert preferences(result.results["model/first"])[:2] == [0, 0]


def test_the_numbers_of_a_step_bear_the_names_of_their_policies(tmp_path: Path) -> None:
    looks = {"name": f"{__name__}:Looks"}
    result = train(tmp_path, credit=looks).fit()
    logged = {metric.name: metric.value for metric in metrics(tmp_path, result.run_id) if metric.step == 1}
    assert {"first/loss", "second/loss", "first/optimizer_steps", "second/optimizer_steps", "reward"} <= set(logged)
    assert "loss" not in logged
    for name in POLICIES:
        assert (logged[f"{name}/seen_rollouts"], logged[f"{name}/seen_rows"]) == (16, 16)
        assert logged[f"{name}/seen_policies"] == 1


def test_each_policy_has_a_credit_of_its_own(tmp_path: Path) -> None:
    policies = {
        "first": {**POLICIES["first"], "credit": {"name": "broadcast", "scale": "none"}},
        "second": {**POLICIES["second"], "credit": f"{__name__}:Nothing"},
    }
    result = train(tmp_path, policies=policies).fit()
    assert preferences(result.results["model/first"])[0] > 0
    assert preferences(result.results["model/second"])[:2] == [0, 0]


def test_a_credit_that_the_policies_share_takes_each_ones_options() -> None:
    section = {**SECTION, "credit": {"name": "broadcast", "scale": "none"}}
    section["policies"] = {**POLICIES, "third": {"agents": ["third"], "credit": {"name": "broadcast", "ddof": 0}}}
    credits = Plain.from_section(section).credits
    assert [credits[name].config.scale for name in ("first", "second", "third")] == ["none", "none", "group"]  # type: ignore[attr-defined]


def test_a_policys_own_settings_are_put_over_those_of_all() -> None:
    policies = {"first": {**POLICIES["first"], "backend": {"lr": 0.5}}, "second": POLICIES["second"]}
    algorithm = Plain.from_section({**SECTION, "policies": policies})
    run = DrawnRun(Path("unused"))
    backends = {backend.name: backend for backend in algorithm.backends(run)}
    assert [backends[name].config.lr for name in POLICIES] == [0.5, 2.0]
    assert [backends[name].config.answers for name in POLICIES] == [["heads", "tails"]] * 2


def test_policies_draw_apart_and_a_single_one_by_the_seed_of_its_run() -> None:
    run = DrawnRun(Path("unused"))
    several = [backend.seed for backend in Plain.from_section(SECTION).backends(run)]
    assert len({*several, run.seed}) == 3
    assert several == [backend.seed for backend in Plain.from_section(SECTION).backends(run)]
    for policies in ({}, {"only": {"agents": ["*"]}}):
        (backend,) = Plain.from_section({**SECTION, "policies": policies}).backends(run)
        assert backend.seed == run.seed


def test_the_first_policy_whose_pattern_matches_answers(tmp_path: Path) -> None:
    policies = {"first": {"agents": ["first"]}, "rest": {"agents": ["*"]}}
    result = train(tmp_path, policies=policies, steps=6).fit()
    assert preferences(result.results["model/first"])[0] > 0
    assert preferences(result.results["model/rest"])[1] > 0


def test_an_agent_that_no_policy_answers_calls_its_own_endpoint(tmp_path: Path) -> None:
    with StubServer() as own:

        def three(question: str) -> dict[str, str | None]:
            ask("judge", own.base_url)
            return both(question)

        result = train(tmp_path, agent=three, steps=1).fit()
        assert own.requests
        assert all(request.json["model"] == "any" for request in own.requests)
    assert preferences(result.results["model/first"])[0] > 0

    async def policies_by_agent() -> set[tuple[str | None, str | None]]:
        store = open_store(f"sqlite:///{tmp_path}/store.db")
        try:
            rollouts = await store.rollouts(result.run_id, purpose="train")
            spans = [one for rollout in rollouts for one in await store.spans(rollout.id, attempt=rollout.attempt)]
        finally:
            await store.close()
        return {(one.agent, one.generation.policy) for one in spans if one.generation is not None}

    assert asyncio.run(policies_by_agent()) == {("first", "first"), ("second", "second"), ("judge", None)}


def test_a_run_that_was_cut_off_goes_on_from_the_checkpoint_of_each_policy(tmp_path: Path) -> None:
    Interrupted.ended = False
    with pytest.raises(AlgorithmError, match="the end"):
        train(tmp_path, algorithm=Interrupted).fit()
    for name in POLICIES:
        (before,) = (tmp_path / "runs").glob(f"*/checkpoints/step-2-*/{name}")
        assert preferences(before)[-1] == 2
    result = train(tmp_path, algorithm=Interrupted).fit(resume=True)
    assert [preferences(result.results[f"model/{name}"])[-1] for name in POLICIES] == [3, 3]


def test_a_run_does_not_go_on_with_another_policy(tmp_path: Path) -> None:
    Interrupted.ended = False
    with pytest.raises(AlgorithmError, match="the end"):
        train(tmp_path, algorithm=Interrupted).fit()
    policies = {**POLICIES, "second": {"agents": ["other"]}}
    with pytest.raises(ConfigError, match=r"algorithm\.policies\.second\.agents: was \['second'\], now \['other'\]"):
        train(tmp_path, algorithm=Interrupted, policies=policies).fit(resume=True)


def test_the_best_weights_are_those_of_all_policies_at_one_step(tmp_path: Path) -> None:
    result = train(tmp_path, steps=4, validate={"every": 1, "tasks": 2, "samples": 2}).fit()
    best = int(result.results["best step"])
    assert [preferences(result.results[f"model/{name}"])[-1] for name in POLICIES] == [best, best]


class Explores(Looks):
    """Adds a rollout to the first group: what it was given."""

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        ((more,),) = await branch([], count=1)
        groups[0].rollouts.append(more)


class Branching(DrawnRun):
    async def branch(self, points: Sequence[Any], *, count: int, step: int) -> list[list[Any]]:
        self.events.append(f"branch {step}")
        return [group("branch", [1.0], rows=[2]).rollouts]


async def test_rollouts_that_one_credit_had_run_are_seen_by_all(tmp_path: Path) -> None:
    policies = {"first": {**POLICIES["first"], "credit": f"{__name__}:Explores"}, "second": POLICIES["second"]}
    algorithm = Plain.from_section({**SECTION, "policies": {**policies, "second": {"agents": ["second"]}}})
    run, groups = Branching(tmp_path), [group("one", [1.0, 0.0], rows=[2, 2]), group("two", [1.0, 0.0], rows=[2, 2])]
    for rows in (member.rows for one in groups for member in one.rollouts):
        rows[0].policy, rows[1].policy = POLICIES
    await algorithm.explore(run, groups, step=5)
    assert run.events == ["branch 5"]
    assert [len(one.rollouts) for one in groups] == [3, 2]
    assert [len(one.rows) for one in groups] == [6, 4]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is a path": ({"a/b": {"agents": ["a"]}}, r"algorithm\.policies: 'a/b' cannot be a policy's name"),
    "no name": ({"": {"agents": ["a"]}}, r"algorithm\.policies: '' cannot be a policy's name"),
    "a name above": ({"..": {"agents": ["a"]}}, r"algorithm\.policies: '\.\.' cannot be a policy's name"),
    "no agents": ({"a": {"agents": []}}, r"algorithm\.policies\.a\.agents: expected the name patterns"),
    "agents that are none": ({"a": {"agents": "a"}}, r"agents: expected array, got str"),
    "agents left out": ({"a": {}}, r"agents: missing, and there is no default"),
    "a pattern twice": (
        {"a": {"agents": ["x", "y"]}, "b": {"agents": ["z", "y"]}},
        r"algorithm\.policies\.b\.agents: 'y' has no effect: 'y' of the policy a, which comes first",
    ),
    "a pattern in another": (
        {"a": {"agents": ["solver*"]}, "b": {"agents": ["solver-?"]}},
        r"b\.agents: 'solver-\?' has no effect: 'solver\*' of the policy a",
    ),
    "all before one": ({"a": {"agents": ["*"]}, "b": {"agents": ["x"]}}, r"b\.agents: 'x' has no effect"),
    "an unknown key": (
        {"a": {"agents": ["x"], "credits": "broadcast"}},
        r"credits: unknown key; did you mean credit\?",
    ),
    "an unknown key of the backend": (
        {"a": {"agents": ["x"], "backend": {"lrr": 1.0}}},
        r"algorithm\.policies\.a\.backend\.lrr: unknown key; did you mean lr\?",
    ),
    "a wrong value of the backend": (
        {"a": {"agents": ["x"], "backend": {"lr": "fast"}}},
        r"algorithm\.policies\.a\.backend\.lr: expected float, got str",
    ),
    "an option of a credit": (
        {"a": {"agents": ["x"], "credit": {"name": "broadcast", "scale": "none", "eps": 0.1}}},
        r"algorithm\.policies\.a\.credit\.eps: has an effect only where scale is group or batch",
    ),
}


@pytest.mark.parametrize(("policies", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_policies_that_make_no_sense_are_refused_before_anything_runs(policies: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plain.from_section({**SECTION, "policies": policies})


def test_patterns_that_overlap_only_in_part_are_taken_in_order() -> None:
    policies = {"a": {"agents": ["solver-?", "planner"]}, "b": {"agents": ["solver-*"]}, "c": {"agents": ["*"]}}
    assert list(Plain.from_section({**SECTION, "policies": policies}).agents.values()) == [
        ("solver-?", "planner"),
        ("solver-*",),
        ("*",),
    ]


def test_a_credit_that_no_policy_has_is_refused() -> None:
    own = {name: {**one, "credit": "broadcast"} for name, one in POLICIES.items()}
    with pytest.raises(ConfigError, match=r"algorithm\.credit: has an effect only where a policy has no credit"):
        Plain.from_section({**SECTION, "credit": "broadcast", "policies": own})
    with pytest.raises(PluginError, match="credit 'brodcast' is not installed"):
        Plain.from_section({**SECTION, "policies": {"a": {"agents": ["a"], "credit": "brodcast"}}})


def test_the_agents_that_are_trained_are_said_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train: algorithm\.policies says which agents are trained"):
        train(tmp_path, train=["first"]).fit()
