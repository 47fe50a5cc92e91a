"""When two calls start from the same state: by the tokens, by what was seen, by where, and by a function of the
user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from credit.made import Call, advantages, agent, group, member, numbers

from agentlightning.credit import load_credit
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Span
from agentlightning.training_rows import Group

STATES_ALONE = {"name": "hgpo", "history": 0, "gamma": 1.0}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def tool_result(content: str, id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def peers(state: str, *calls: Call) -> bool:
    """Whether these calls, one of a rollout each, start from equal states."""
    one = group(*(member(str(place), [call], float(place)) for place, call in enumerate(calls)))
    share = numbers({**STATES_ALONE, "state": state}, one)["credit_calls_with_peer"]
    assert share in (0.0, 1.0)
    return share == 1.0


def test_by_prompt_the_tokens_before_the_answer_count_and_nothing_else() -> None:
    assert peers("prompt", Call([1, 2], [3]), Call([1, 2], [4, 5], agent="another"))
    assert not peers("prompt", Call([1, 2], [3]), Call([1, 2, 3], [4]))
    assert not peers("prompt", Call([1, 2], [3]), Call([2, 1], [3]))


def test_by_prompt_the_calls_of_one_row_have_different_states() -> None:
    calls = [Call([1], [2]), Call([1, 2, 3], [4])]
    one = group(member("a", calls, 1.0), member("b", calls, 0.0))
    assert len(one.rows) == 2
    assert advantages({**STATES_ALONE, "state": "prompt"}, one) == [
        pytest.approx([1.0, 1.0], abs=1e-5),
        pytest.approx([-1.0, -1.0], abs=1e-5),
    ]


def test_by_observation_what_came_after_the_last_answer_counts() -> None:
    asked, other = user("the weather?"), user("the weather in Paris?")
    seen = Call([1], messages=[asked, assistant("I look"), tool_result("sunny", "call_1")])
    again = Call([2], messages=[other, assistant("Let us see"), tool_result("sunny", "call_2")])
    rain = Call([1], messages=[asked, assistant("I look"), tool_result("rain", "call_1")])
    assert peers("observation", seen, again)
    assert not peers("observation", seen, rain)
    assert peers("observation", Call([1], messages=[asked]), Call([2], messages=[asked]))
    assert not peers("observation", Call([1], messages=[asked]), Call([2], messages=[other]))


def test_an_answer_that_is_to_be_gone_on_with_is_part_of_the_observation() -> None:
    one, two = ([user("a number?"), assistant(start)] for start in ("It is 1", "It is 2"))
    assert not peers("observation", Call([1], messages=one), Call([1], messages=two))


def test_who_said_it_is_part_of_the_observation() -> None:
    assert not peers("observation", Call([1], messages=[user("x")]), Call([1], messages=[tool_result("x", "1")]))


def in_node(node: str, content: str, *, structure: str = "node", graph: str = "graph") -> tuple[Call, list[Span]]:
    """A call in a node of an agent's graph, between them a chain."""
    spans = [
        agent("g", graph, "graph"),
        agent("n", node, structure, parent="g"),
        agent("c", "RunnableSequence", "chain", parent="n"),
    ]
    return Call([1], messages=[user(content)], parent="c"), spans


def node_peers(*made: tuple[Call, list[Span]]) -> bool:
    one = group(*(member(str(at), [call], float(at), spans=spans) for at, (call, spans) in enumerate(made)))
    return numbers({**STATES_ALONE, "state": "node"}, one)["credit_calls_with_peer"] == 1.0


def test_by_node_the_node_and_its_observation_count() -> None:
    assert node_peers(in_node("plan", "x"), in_node("plan", "x", graph="another"))
    assert not node_peers(in_node("plan", "x"), in_node("write", "x"))
    assert not node_peers(in_node("plan", "x"), in_node("plan", "y"))


def test_by_node_a_call_in_none_belongs_to_what_it_was_made_in_or_to_its_agent() -> None:
    team = in_node("crew", "x", structure="team")
    assert node_peers(team, in_node("crew", "x", structure="team"))
    assert not node_peers(team, in_node("crowd", "x", structure="team"))
    bare = [(Call([1], messages=[user("x")], agent=name), list[Span]()) for name in ("a", "a", "b")]
    assert node_peers(*bare[:2])
    assert not node_peers(*bare[1:])


def by_length_and_place(span: Span, spans: Sequence[Span]) -> object:
    assert span in spans
    assert span.generation is not None
    assert span.generation.prompt_ids is not None
    return len(span.generation.prompt_ids), spans.index(span)


def raises(span: Span, spans: Sequence[Span]) -> object:
    raise KeyError("board")


def unhashable(span: Span, spans: Sequence[Span]) -> object:
    return [span.id]


async def waits(span: Span, spans: Sequence[Span]) -> object:
    return span.id


def of_one(span: Span) -> object:
    return span.id


NO_FUNCTION = 3


def test_by_a_function_of_the_users_what_it_gives_counts() -> None:
    name = f"{__name__}:by_length_and_place"
    assert peers(name, Call([1, 2]), Call([3, 4]))
    assert not peers(name, Call([1, 2]), Call([3]))


@pytest.mark.parametrize(("function", "message"), [("raises", "KeyError: 'board'"), ("unhashable", "TypeError")])
def test_a_function_that_gives_no_state_ends_the_step_by_name(function: str, message: str) -> None:
    name = f"{__name__}:{function}"
    with pytest.raises(AlgorithmError, match=rf"{name} failed for the state of call 0 of rollout a: {message}"):
        advantages({"name": "gigpo", "state": name}, group(member("a", [Call([1])], 1.0)))


@pytest.mark.parametrize("credit", ["gigpo", "hgpo"])
@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("promt", "expected prompt, observation, node or module:function, got 'promt'"),
        ("no_such_module:state", "no module named 'no_such_module'"),
        (f"{__name__}:absent", "has no 'absent'"),
        (f"{__name__}:NO_FUNCTION", "expected a function that is not asynchronous"),
        (f"{__name__}:waits", "expected a function that is not asynchronous"),
        (f"{__name__}:of_one", "is called with an llm span, the rollout's spans: too many positional arguments"),
    ],
)
def test_a_state_that_is_none_is_refused_when_the_config_is_made(credit: str, state: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_credit({"name": credit, "state": state})
    assert str(caught.value).startswith("algorithm.credit.state: ")
    assert message in str(caught.value)


def without_spans() -> Group:
    one = group(member("a", [Call([1])], 1.0), member("b", [Call([1])], 0.0))
    for of_rollout in one.rollouts:
        of_rollout.spans = []
    return one


def test_a_span_that_is_missing_ends_the_step_where_it_is_needed() -> None:
    assert advantages("gigpo", without_spans())
    with pytest.raises(AlgorithmError, match="needs the span of call 0 of rollout a"):
        advantages({"name": "gigpo", "state": "observation"}, without_spans())
    with pytest.raises(AlgorithmError, match="needs the span of call 0 of rollout a"):
        advantages("mt_grpo", without_spans())
