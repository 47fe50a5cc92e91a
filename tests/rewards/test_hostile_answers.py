"""What the model wrote is its own fault, and no pattern stops the process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from worth import score, worth

from agentlightning.answers import final_answer, output_text
from agentlightning.errors import ConfigError, RewardError
from agentlightning.records import Rollout, Task
from agentlightning_rewards import patterns
from agentlightning_rewards.regex import Regex, RegexConfig

BACKTRACKING = r"^(a|aa)+$"
ANSWER = "a" * 60 + "b"


async def count_until(done: asyncio.Task[Any]) -> int:
    """How often the event loop came round while something else went on."""
    rounds = 0
    while not done.done():
        await asyncio.sleep(0.005)
        rounds += 1
    return rounds


@pytest.mark.parametrize(
    ("name", "output", "config"),
    [
        ("regex", ANSWER, {"pattern": BACKTRACKING}),
        ("regex", ANSWER, {"pattern": BACKTRACKING, "group": 1}),
        ("json_schema", json.dumps(ANSWER), {"schema": {"pattern": BACKTRACKING}}),
        ("json_schema", {ANSWER: 1}, {"schema": {"patternProperties": {BACKTRACKING: {"type": "string"}}}}),
        (
            "json_schema",
            {ANSWER: 1},
            {"schema": {"additionalProperties": False, "patternProperties": {BACKTRACKING: {}}}},
        ),
    ],
)
async def test_a_pattern_that_backtracks_is_a_reward_error_and_the_process_lives(
    name: str, output: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.3)
    scored = asyncio.create_task(score(name, output, "x", **config))
    rounds = await asyncio.wait_for(count_until(scored), 60)

    reward, (failure,) = scored.result()
    assert (reward.value, failure.type) == (None, "reward_error")
    assert f"the pattern {BACKTRACKING!r} takes longer than 0.3 s" in failure.message
    assert rounds > 3


async def test_the_runs_own_limit_comes_first_where_it_is_shorter() -> None:
    reward, (failure,) = await asyncio.wait_for(score("regex", ANSWER, pattern=BACKTRACKING, seconds=0.2), 60)
    assert (reward.value, failure.type) == (None, "reward_error")
    assert "runner.reward_timeout = 0.2 s" in failure.message


def test_called_by_hand_it_raises_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    reward = Regex(RegexConfig(pattern=BACKTRACKING))
    rollout = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=ANSWER)
    with pytest.raises(RewardError, match="write it without repetition in a repetition"):
        reward(rollout, Task(id="t", input="?"))


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        ({}, "[" * 100_000, 0.0),
        ({}, "[" * 100_000 + "]" * 100_000, 0.0),
        ({}, '{"a":' * 100_000 + "1" + "}" * 100_000, 0.0),
        (TREE, "[" * 500 + "]" * 500, 0.0),
        (TREE, "[[], [[]]]", 1.0),
        (TREE, "[[], [1]]", 0.0),
        (NUMBER, '{"a": NaN}', 0.0),
        ({}, "NaN", 0.0),
        ({}, "[Infinity, -Infinity]", 0.0),
        (NUMBER, '{"a": 1e999}', 0.0),
        (NUMBER, '{"a": %s}' % ("9" * 5_000), 1.0),
        (NUMBER, '{"a": -%s}' % ("9" * 5_000), 1.0),
        ({"maximum": 10}, "9" * 5_000, 0.0),
        ({}, "9" * 1_000_000, 0.0),
        (NUMBER, '{"a": 1.0}', 1.0),
        (NUMBER, '{"a": "x", "a": 1}', 1.0),
        (NUMBER, '{"a": 1, "a": "x"}', 0.0),
        (NUMBER, "{'a': 1}", 0.0),
        (NUMBER, '{"a": 1,}', 0.0),
        (NUMBER, '{"a": 1} // one', 0.0),
        (NUMBER, 'The answer: {"a": 1}', 0.0),
        (NUMBER, '\ufeff{"a": 1}\n', 1.0),
        (NUMBER, '```json\n{"a": 1}\n```', 1.0),
        (NUMBER, '```JSON\n{"a": 1}```', 1.0),
        (NUMBER, '```json\n{"a": 1}', 0.0),
        (NUMBER, '```python\n{"a": 1}\n```', 0.0),
        (NUMBER, "```" + "\n" * 200_000, 0.0),
        (CITY, '{"city": "\\ud800"}', 1.0),
        (CITY, '{"city": "\x00"}', 0.0),
        ({}, "", 0.0),
        ({}, "null", 1.0),
    ],
)
async def test_json_schema_on_what_a_model_may_write(schema: dict[str, Any], answer: str, value: float) -> None:
    assert await worth("json_schema", answer, schema=schema) == value


DEEP = {"a": {"properties": {"a": {"$ref": "#/$defs/node"}}}, "node": {"items": {"$ref": "#/$defs/node"}}}


async def test_json_schema_on_a_structured_answer_that_nests_too_deep() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert await worth("json_schema", {"output": {"a": deep}}, schema={"$ref": "#/$defs/a", "$defs": DEEP}) == 0


WRONG = [
    ({"type": "strin"}, "schema.type is no JSON Schema: 'strin'"),
    ({"properties": 5}, "schema.properties is no JSON Schema"),
    ({"pattern": "("}, "schema.pattern is no JSON Schema: '\\(' is not a 'regex'"),
    ({"patternProperties": {"[": {}}}, "schema.patternProperties is no JSON Schema: '\\[' is not a 'regex'"),
    ({"properties": {"a": {"items": {"pattern": "*"}}}}, "schema.properties.a.items.pattern is no JSON Schema"),
    ({"$ref": "#/$defs/none"}, "\\$ref '#/\\$defs/none' is not in the schema"),
    ({"properties": {"a": {"$ref": "other.json"}}}, "\\$ref 'other.json' is not in the schema, and nothing is fetched"),
    ({"$ref": "#"}, "refers to itself without an end"),
    ({"allOf": [{"$ref": "#"}]}, "refers to itself without an end"),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "minimum": "1"}, "schema.minimum is no JSON Schema"),
]


@pytest.mark.parametrize(("schema", "message"), WRONG, ids=lambda it: json.dumps(it)[:40])
async def test_a_wrong_schema_is_refused_before_anything_runs(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await worth("json_schema", "", schema=schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "http://example.org/city", "$ref": "#/$defs/city", "$defs": {"city": CITY}},
        {"$ref": "city", "$defs": {"city": {"$id": "city", **CITY}}, "$id": "http://example.org/root"},
        {"$ref": "#c", "$defs": {"city": {"$anchor": "c", **CITY}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/c", "definitions": {"c": CITY}},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"enum": ["("]}}, "required": ["city"]},
    ],
)
async def test_references_within_a_schema_are_followed(schema: dict[str, Any]) -> None:
    assert await worth("json_schema", '{"city": "Rome"}', schema=schema) == 1.0
    assert await worth("json_schema", '{"town": "Rome"}', schema=schema) == 0.0


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        ({"pattern": "^a+$"}, '"aaa"', 1.0),
        ({"pattern": "^a+$"}, '"ab"', 0.0),
        ({"pattern": "^a+$"}, "5", 1.0),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, '{"n_a": 1, "b": "x"}', 1.0),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, '{"n_a": "x"}', 0.0),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, '{"n_a": 1}', 1.0),
        ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, '{"a": 1}', 0.0),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, '{"a": 1, "b": "x"}', 1.0),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, '{"a": 1, "b": 2}', 0.0),
        ({"additionalProperties": False}, "[1]", 1.0),
    ],
)
async def test_keywords_with_patterns(schema: dict[str, Any], answer: str, value: float) -> None:
    assert await worth("json_schema", answer, schema=schema) == value


def test_an_output_that_holds_itself_has_an_answer() -> None:
    circle: dict[str, Any] = {}
    circle["output"] = circle
    assert final_answer(circle) is circle
    assert output_text(circle).startswith("{'output'")


async def test_a_long_answer_is_scored_by_each() -> None:
    answer = "word " * 100_000 + "answer: 7"
    assert await worth("numeric_match", answer, 7) == 1.0
    assert await worth("exact_match", answer, 7) == 0.0
    assert await worth("regex", answer, 7, pattern=r"answer: (\d+)", group=1) == 1.0
    assert await worth("json_schema", answer, schema={}) == 0.0
