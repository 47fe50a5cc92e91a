"""The options of every credit: each has a range, and changes something or is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from config_numbers import numbers_of, outside, section
from credit.chains import RIGHT, WRONG, Simulator, chain
from credit.made import Call, advantages, agent, group, member, numbers, tool

from agentlightning.config import decode_section
from agentlightning.credit import Credit, load_credit
from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import Span
from agentlightning.training_rows import Group

NAMES = ("discounted", "gigpo", "hgpo", "gagpo", "mt_grpo", "per_agent", "tree", "replay")
CREDITS: dict[str, type[Credit]] = {name: plugins().find("credit", name) for name in NAMES}
NUMBERS = [
    (name, text, path, number) for name, kind in CREDITS.items() for text, path, number in numbers_of(kind.Config)
]
WRONG_NUMBERS = [(name, text, path, value) for name, text, path, number in NUMBERS for value in outside(number)]


def test_all_of_them_are_registered() -> None:
    (info,) = [one for one in plugins().installed() if one.distribution == "agentlightning-credit"]
    assert info.registers == {"credit": list(NAMES)}


def test_every_number_has_a_range() -> None:
    assert [text for _, text, _, number in NUMBERS if number.ge is None and number.gt is None] == []


@pytest.mark.parametrize(("name", "text", "path", "value"), WRONG_NUMBERS, ids=lambda value: str(value)[:20])
def test_a_number_outside_of_its_range_is_refused(name: str, text: str, path: Any, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_credit({"name": name, **section(path, value)})
    assert str(caught.value).startswith(f"algorithm.credit.{text}: ")


BASE: dict[str, dict[str, Any]] = {
    "discounted": {},
    "gigpo": {},
    "hgpo": {"state": "observation"},
    "gagpo": {},
    "mt_grpo": {},
    "per_agent": {"of": "broadcast"},
    "tree": {"branches": 1},
    "replay": {"scale": "group"},
}
CHANGED: dict[str, dict[str, Any]] = {
    "discounted": {"gamma": 0.5, "scale": "none", "eps": 0.1},
    "gigpo": {
        "state": "observation",
        "omega": 2.0,
        "gamma": 0.5,
        "episodes_over": "calls",
        "scale": "none",
        "eps": 0.1,
    },
    "hgpo": {"state": "node", "history": 0, "alpha": 4.0, "gamma": 0.5, "eps": 0.1},
    "gagpo": {"gamma": 0.5, "gae_lambda": 0.1, "index_from": "end", "eps": 0.1},
    "mt_grpo": {"turn_weight": 2.0, "eps": 0.1},
    "per_agent": {"of": "gagpo"},
    "tree": {"branches": 2, "count": 2, "eps": 0.1},
    "replay": {"count": 2, "points": 1, "once": ["pay"], "scale": "none", "eps": 0.1},
}


def rich_group() -> Group:
    """Rollouts of several lengths, agents, observations, nodes and step rewards, in which a tool ran."""
    members = []
    for number, answers in enumerate(
        [[RIGHT, RIGHT, RIGHT, WRONG], [RIGHT, WRONG, WRONG], [WRONG, RIGHT, RIGHT], [RIGHT, RIGHT, WRONG, WRONG]]
    ):
        calls = [
            Call(
                [1, *answers[:place]],
                [answer],
                reward=0.25 * (place + number) if place == number % 2 else None,
                agent="ab"[place % 2],
                messages=[{"role": "user", "content": str(sum(answers[:place]) % 2)}],
                parent="ab"[(place + number) % 2],
            )
            for place, answer in enumerate(answers)
        ]
        spans: list[Span] = [agent("a", "plan", "node"), agent("b", "write", "node"), tool("pay", after=2)]
        members.append(member(f"rollout{number}", calls, float(answers[1] == RIGHT) + number / 8, spans=spans))
    return group(*members)


async def measured(options: dict[str, Any]) -> tuple[Any, ...]:
    one = rich_group()
    simulator = Simulator(one, worth=lambda answers: sum(answers) % 7 / 4)
    credit = load_credit(options)
    await credit.explore([one], simulator)
    return advantages(credit, one), numbers(credit, one), simulator.asked, simulator.counts


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_changed_here(name: str) -> None:
    assert sorted(CHANGED[name]) == sorted(field.encode_name for field in msgspec.structs.fields(CREDITS[name].Config))


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in NAMES for key in CHANGED[name]], ids=lambda value: str(value)
)
async def test_an_option_changes_something(name: str, key: str) -> None:
    base = {"name": name, **BASE[name]}
    assert await measured(base) == await measured(base)
    assert await measured({**base, key: CHANGED[name][key]}) != await measured(base)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "gigpo", "omega": 0, "gamma": 0.5},
            "algorithm.credit.gamma: has an effect only where omega is",
        ),
        (
            {"name": "gigpo", "omega": 0, "state": "node"},
            "algorithm.credit.state: has an effect only where omega",
        ),
        ({"name": "gigpo", "scale": "none", "eps": 1}, "algorithm.credit.eps: has an effect only where scale is group"),
        (
            {"name": "discounted", "scale": "none", "eps": 1},
            "algorithm.credit.eps: has an effect only where scale",
        ),
        ({"name": "replay", "eps": 1}, "algorithm.credit.eps: has an effect only where scale is group; leave it out"),
        ({"name": "gigpo", "omga": 1}, "algorithm.credit.omga: unknown key; did you mean omega?"),
        ({"name": "gagpo", "index_from": "middle"}, "algorithm.credit.index_from: invalid enum value 'middle'"),
    ],
)
def test_an_option_without_effect_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_credit(options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_made_in_python_is_checked_as_well(name: str) -> None:
    kind = CREDITS[name]
    config = decode_section(BASE[name], kind.Config)
    assert type(kind(config).config) is kind.Config
    for text, _, number in numbers_of(kind.Config):
        wrong = msgspec.structs.replace(config, **{text: outside(number)[0]})
        with pytest.raises(ConfigError, match=rf"^algorithm\.credit\.{text}: "):
            kind(wrong)


async def test_rollouts_may_be_anything_that_is_scored() -> None:
    """No call, one call, step rewards alone, several calls in a row."""
    for name in NAMES:
        one = group(
            member("none", [], 1.0),
            member("one", [Call([1], [8])], 0.0),
            member("steps", [Call([1], [9], reward=0.5), Call([3], [1])], None),
            chain("row", [RIGHT, WRONG, RIGHT]),
        )
        credit = load_credit({"name": name, **BASE[name]})
        await credit.explore([one], Simulator(one))
        assert [len(of_rollout) for of_rollout in advantages(credit, one)][:4] == [0, 1, 2, 3]
