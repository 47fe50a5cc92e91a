"""Which prompts of an agent may be changed, found in its rollouts."""

from __future__ import annotations

import pytest

from agentlightning import semconv
from agentlightning.errors import AlgorithmError
from agentlightning.records import Generation, Prompt, Rollout, Span
from agentlightning_prompt.roles import Observed, Role, chosen_roles, fields_of, find_roles

Call = tuple[str | None, str | None]
"""An agent, and the system prompt that it has, if any."""


def observed(task: str, *calls: Call, named: tuple[str, str] | None = None) -> Observed:
    rollout = Rollout(id=task, run_id="r", group_id="g", task_id=task, purpose="train")
    spans = []
    for agent, text in calls:
        system = [] if text is None else [{"role": "system", "content": text}]
        generation = Generation(messages=[*system, {"role": "user", "content": task}])
        spans.append(Span(rollout_id=task, kind="llm", name="chat", agent=agent, generation=generation))
    if named is not None:
        attributes = {semconv.PROMPT_NAME: named[0], semconv.PROMPT_DEFAULT: named[1]}
        spans.append(Span(rollout_id=task, kind="annotation", name="prompt", attributes=attributes))
    return rollout, spans


def roles_of(*calls: Call, agents: tuple[str, ...] = ("*",)) -> list[Role]:
    return find_roles([observed("1", *calls), observed("2", *calls)], agents=agents)


def test_a_single_agents_prompt_is_for_all_calls() -> None:
    (role,) = roles_of(("solver", "Solve."))
    assert (role.name, role.text) == ("solver", "Solve.")
    assert role.prompt("Solve well.") == Prompt(name="solver", agents=("*",), template="Solve well.")


def test_of_several_agents_each_has_its_own() -> None:
    planner, writer = roles_of(("planner", "Plan."), ("writer", "Write."))
    assert planner.prompt().agents == ("planner",)
    assert (planner.replaces, writer.replaces) == ("Plan.", "Write.")


def test_system_prompts_of_one_agent_are_told_apart_by_their_texts() -> None:
    first, second = roles_of((None, "Plan."), (None, "Write."))
    assert [first.name, second.name] == ["agent 1", "agent 2"]
    assert (first.prompt().agents, first.prompt().replaces) == (("",), "Plan.")
    assert [role.has(observed("1", (None, "Plan."))[1][0]) for role in (first, second)] == [True, False]


def test_a_text_that_two_agents_share_tells_neither_apart() -> None:
    assert [role.replaces for role in roles_of(("a", "Help."), ("b", "Help."))] == [None, None]


def test_a_system_prompt_that_differs_from_task_to_task_is_no_text_to_change() -> None:
    (role,) = find_roles([observed("1", ("solver", "Solve 1.")), observed("2", ("solver", "Solve 2."))])
    assert role.text is None
    assert role.prompt(demonstrations=[[]]).replaces is None
    assert "agl.prompt(name, default)" in (role.refusal("Solve.") or "")


def test_an_agent_without_a_system_prompt_has_an_empty_one() -> None:
    (role,) = roles_of(("solver", None))
    assert (role.text, role.replaces) == ("", None)


def test_only_agents_that_are_trained_have_roles() -> None:
    assert [role.name for role in roles_of(("a", "A"), ("b", "B"), agents=("b",))] == ["b"]


def test_a_pattern_in_an_agents_name_matches_that_name_alone() -> None:
    role, _ = roles_of(("a*", "A"), ("ab", "B"))
    assert role.prompt().agents == ("a[*]",)


def test_a_prompt_with_a_name_is_for_no_agent() -> None:
    seen = [observed(task, ("solver", f"Solve {task}"), named=("solver", "Solve {x}")) for task in "12"]
    named, agent = find_roles(seen)
    assert (named.name, named.fields, named.prompt("Do {x}").agents) == ("solver", ("x",), ())
    assert agent.name == "solver'"


REFUSED = {
    "Do {x} and {y}": None,
    "Do {y}, then {x} as {x!r:>5}": None,
    "Do {x}": "it lost {y}",
    "Do {x} {y} {z}": "it has {z}, which nobody fills in",
    "Do {x} {y} {": "it is no format string",
    " ": "it is empty",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=REFUSED)
def test_a_candidate_keeps_the_fields_of_its_prompt(text: str, why: str | None) -> None:
    role = Role(name="p", named=True, text="{x} {y}", fields=("x", "y"))
    found = role.refusal(text)
    assert (found is None) if why is None else (found is not None and why in found)


def test_braces_in_a_system_prompt_are_no_fields() -> None:
    (role,) = roles_of(("solver", 'Answer as {"a": 1}.'))
    assert role.refusal('Answer as {"b": 1} and {c}.') is None


def test_fields_are_named_without_what_is_taken_of_them() -> None:
    assert fields_of("{a.b} {a[0]} {c!s} {{no}}") == ("a", "c")
    assert fields_of("{") is None


def test_a_name_that_nobody_has_is_refused_with_those_there_are() -> None:
    roles = roles_of(("planner", "Plan."), ("writer", "Write."))
    assert [role.name for role in chosen_roles(roles, ["writer"])] == ["writer"]
    with pytest.raises(AlgorithmError, match=r"no prompt 'planer'.*planner.*there is planner, writer"):
        chosen_roles(roles, ["planer"])
