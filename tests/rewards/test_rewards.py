"""The usual rewards: tables of what an agent says, what is expected, and what that is worth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from worth import worth

from agentlightning.answers import final_answer, output_text
from agentlightning.errors import ConfigError

ANSWERS = [
    "Paris",
    {"output": "Paris"},
    {"messages": [{"role": "user", "content": "Capital?"}, {"role": "assistant", "content": "Paris"}]},
    {"messages": [SimpleNamespace(content="Capital?"), SimpleNamespace(content="Paris")]},
    SimpleNamespace(messages=[SimpleNamespace(source="assistant", content="Paris")]),
    SimpleNamespace(output="Paris"),
    {"content": [{"type": "text", "text": "Par"}, {"type": "image"}, {"type": "text", "text": "is"}]},
    {"output": {"messages": [{"content": "Paris"}]}},
]


@pytest.mark.parametrize("output", ANSWERS, ids=repr)
def test_the_answer_is_read_out_of_any_output(output: Any) -> None:
    assert output_text(output) == "Paris"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (None, ""),
        (42, "42"),
        ({"city": "Köln"}, '{"city": "Köln"}'),
        ([1, 2], "[1, 2]"),
        ({"messages": []}, '{"messages": []}'),
    ],
)
def test_an_output_without_text_has_a_text_form(output: Any, text: str) -> None:
    assert output_text(output) == text


def test_a_structured_answer_stays_structured() -> None:
    assert final_answer({"output": {"city": "Paris"}}) == {"city": "Paris"}


@pytest.mark.parametrize(
    ("output", "expected", "config", "value"),
    [
        ("Paris", "Paris", {}, 1.0),
        ("  paris\n", "Paris", {}, 1.0),
        ("paris", "Paris", {"ignore_case": False}, 0.0),
        ("New  York", "New York", {}, 1.0),
        ("ﬁne", "fine", {}, 1.0),
        ("Paris.", "Paris", {}, 0.0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1.0),
        ("The Eiffel Tower", "eiffel tower", {}, 0.0),
        ("The Eiffel Tower", "eiffel tower", {"ignore_articles": True}, 1.0),
        ("It is Paris", "Paris", {}, 0.0),
        ("USA", ["United States", "usa"], {}, 1.0),
        ("42", 42, {}, 1.0),
        (42, "42", {}, 1.0),
        (None, "Paris", {}, 0.0),
        ("Paris", None, {}, None),
    ],
)
async def test_exact_match(output: Any, expected: Any, config: dict[str, Any], value: float | None) -> None:
    assert await worth("exact_match", output, expected, **config) == value


async def test_exact_match_cannot_compare_with_an_object() -> None:
    with pytest.raises(AssertionError, match="neither text nor number"):
        await worth("exact_match", "Paris", {"city": "Paris"})


@pytest.mark.parametrize(
    ("output", "expected", "value"),
    [
        ("42", 42, 1.0),
        (42, "42", 1.0),
        ("41", 42, 0.0),
        ("the answer is 1,234.50 dollars", 1234.5, 1.0),
        ("That is 1,234,567 in all.", "1234567", 1.0),
        ("3/4", 0.75, 1.0),
        ("0.75", "3/4", 1.0),
        ("1 1/2 cups", 1.5, 1.0),
        ("\\boxed{\\frac{3}{4}}", 0.75, 1.0),
        ("-5", -5, 1.0),
        ("−5 degrees", -5, 1.0),
        ("10-4", 4, 1.0),
        ("-$5", -5, 1.0),
        ("1e-3", 0.001, 1.0),
        (".5", 0.5, 1.0),
        ("It is 42.", 42, 1.0),
        ("First 3, then 4, so 7", 7, 1.0),
        ("Answer: 7, because 3 + 4 is it", 7, 1.0),
        ("Is the answer: 9? No.\nANSWER: 7 (from 3 and 4)", 7, 1.0),
        ("Answer: see 7", "so 3 + 4 #### 7", 1.0),
        ("The answer is unclear, perhaps 7", 7, 1.0),
        ("50%", 50, 1.0),
        ("50%", 0.5, 1.0),
        ("0.5", "50%", 1.0),
        ("50 percent", "50%", 1.0),
        ("0.5%", "50%", 0.0),
        ("$1.2 million", 1_200_000, 1.0),
        ("1.5 km", "1500 m", 1.0),
        ("1.5 km", 1.5, 1.0),
        ("1.5 km", "1.5 m", 0.0),
        ("2 hours", "120 minutes", 1.0),
        ("2 hours", "2 km", 0.0),
        ("250 cents", "$2.50", 1.0),
        ("5 apples", "5 pears", 1.0),
        ("5€", "$5", 0.0),
        ("3/0", 3, 0.0),
        ("version v2x", 2, 0.0),
        ("no idea", 42, 0.0),
        (None, 42, 0.0),
        ("42", None, None),
        ("42", "forty-two", None),
        ("1", True, None),
    ],
)
async def test_numeric_match(output: Any, expected: Any, value: float | None) -> None:
    assert await worth("numeric_match", output, expected) == value


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({}, 0.0),
        ({"tolerance": 0.01}, 1.0),
        ({"relative_tolerance": 0.01}, 1.0),
        ({"tolerance": 0.001, "relative_tolerance": 0.0001}, 0.0),
        ({"tolerance": 0.01, "markers": ["so"]}, 0.0),
    ],
)
async def test_numeric_match_forgives_as_much_as_it_is_told(config: dict[str, Any], value: float) -> None:
    assert await worth("numeric_match", "so 1, no, 3.14", "3.1416", **config) == value


@pytest.mark.parametrize(
    ("output", "expected", "config", "value"),
    [
        ("Answer: B", None, {"pattern": r"Answer: [A-D]"}, 1.0),
        ("answer: b", None, {"pattern": r"Answer: [A-D]"}, 0.0),
        ("answer: b", None, {"pattern": r"(?i)Answer: [A-D]"}, 1.0),
        ("Answer: B", "B", {"pattern": r"Answer: ([A-D])", "group": 1}, 1.0),
        ("Answer: B", "C", {"pattern": r"Answer: ([A-D])", "group": 1}, 0.0),
        ("Answer: B. No, Answer: C", "C", {"pattern": r"Answer: (?P<letter>[A-D])", "group": "letter"}, 1.0),
        ("none", "B", {"pattern": r"Answer: ([A-D])", "group": 1}, 0.0),
        ("none", "B", {"pattern": r"none|(B)", "group": 1}, 0.0),
        ("7", 7, {"pattern": r"\d+", "group": 0}, 1.0),
        ("Answer: B", None, {"pattern": r"Answer: ([A-D])", "group": 1}, None),
    ],
)
async def test_regex(output: Any, expected: Any, config: dict[str, Any], value: float | None) -> None:
    assert await worth("regex", output, expected, **config) == value


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 0}},
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ('{"city": "Paris", "people": 2100000}', 1.0),
        ('{"people": 2100000}', 0.0),
        ('{"city": "Paris", "people": -1}', 0.0),
        ('Here it is:\n```json\n{"city": "Paris"}\n```\nAnything else?', 1.0),
        ("```\n{}\n```", 0.0),
        ("Paris", 0.0),
        ({"city": "Paris"}, 1.0),
        ({"town": "Paris"}, 0.0),
        ({"output": {"city": "Paris"}}, 1.0),
        ({"messages": [{"content": '{"city": "Paris"}'}]}, 1.0),
        (None, 0.0),
    ],
)
async def test_json_schema(output: Any, value: float) -> None:
    assert await worth("json_schema", output, schema=CITY) == value


async def test_json_schema_fetches_nothing() -> None:
    with pytest.raises(ConfigError, match=r"\$ref 'http://127.0.0.1:9/schema.json' is not in the schema"):
        await worth("json_schema", {}, schema={"$ref": "http://127.0.0.1:9/schema.json"})


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("exact_match", {"ignore_caps": True}, "reward.config.ignore_caps: unknown key; did you mean ignore_case"),
        ("numeric_match", {"tolerance": "a"}, "reward.config.tolerance: expected float, got str"),
        ("regex", {}, "reward.config.pattern: missing"),
        ("regex", {"pattern": "("}, "regex: pattern '\\(' is no regular expression: missing \\)"),
        ("regex", {"pattern": "(a)", "group": 2}, "has no group 2; it has \\[0, 1\\]"),
        ("json_schema", {"schema": {"type": "strin"}}, "json_schema: schema.type is no JSON Schema: 'strin'"),
    ],
)
async def test_a_wrong_config_is_refused(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await worth(name, "", **config)


def test_the_plugin_imports_none_of_its_rewards() -> None:
    import subprocess
    import sys

    program = (
        "import sys, agentlightning_rewards.plugin\n"
        "print([m for m in sys.modules if m.startswith(('agentlightning_rewards.', 'jsonschema'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['agentlightning_rewards.plugin']"
