"""What may stand as the agent, and what is refused: nothing is called to see what it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentlightning.agents import load_agent
from agentlightning.errors import AdapterError, ConfigError
from agentlightning.function_adapter import FunctionAdapter
from agentlightning.plugins import plugins

MODULE = """
calls = []


def solve(question):
    return question


def solve_with_defaults(question="hello", *, model="m"):
    return question


def solve_anything(*arguments):
    return arguments


def main():
    calls.append("main")


async def kickoff():
    calls.append("kickoff")


def main_with_options(*, verbose=False, **more):
    calls.append("main_with_options")


def two(question, model):
    calls.append("two")


def named(*, question):
    calls.append("named")


class Bot:
    def __init__(self):
        calls.append("Bot")

    def __call__(self, question):
        return question


class Team:
    def build(self):
        calls.append("build")
        return solve


class Silent:
    def __call__(self):
        calls.append("Silent")


team, silent = Team(), Silent()


def make(model="m"):
    calls.append("make")
    return solve


def make_for(tenant):
    return solve


async def make_later():
    return solve


def make_badly():
    return {}["no such key"]


def make_and_exit():
    raise SystemExit("usage: …")
"""


@pytest.fixture(autouse=True)
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "agents_of_users.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import agents_of_users  # type: ignore[import-not-found]

    yield agents_of_users
    del sys.modules["agents_of_users"]


def load(agent: str | Callable[..., Any]) -> Any:
    return load_agent(f"agents_of_users:{agent}" if isinstance(agent, str) else agent, plugins())


@pytest.mark.parametrize("name", ["solve", "solve_with_defaults", "solve_anything"])
def test_a_function_that_can_take_one_input_is_an_agent(agents: Any, name: str) -> None:
    agent, adapter = load(name)
    assert agent is getattr(agents, name)
    assert isinstance(adapter, FunctionAdapter)


@pytest.mark.parametrize("name", ["main", "kickoff", "main_with_options", "Bot", "Team"])
def test_what_takes_no_input_is_refused_with_what_to_do_and_not_called(agents: Any, name: str) -> None:
    with pytest.raises(AdapterError, match=rf"agents_of_users:{name} (is a class|takes).*agents_of_users:{name}\(\)"):
        load(name)
    with pytest.raises(AdapterError, match=rf"^{name} (is a class|takes).*write {name}\(\)"):
        load(getattr(agents, name))
    assert agents.calls == []


@pytest.mark.parametrize("name", ["two", "named", "silent"])
def test_a_function_of_other_than_one_input_is_refused(agents: Any, name: str) -> None:
    with pytest.raises(AdapterError, match="an agent is a function of one task's input"):
        load(name)
    assert agents.calls == []


@pytest.mark.parametrize(("name", "called"), [("make()", "make"), ("Bot()", "Bot"), ("team.build()", "build")])
def test_parentheses_have_it_called_once(agents: Any, name: str, called: str) -> None:
    agent, _ = load(name)
    assert agent("hello") == "hello"
    assert agents.calls == [called]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("make_for()", r"make_for\(\): it cannot be called without arguments: missing a required argument: 'tenant'"),
        ("team()", r"team\(\): it cannot be called without arguments"),
        ("make_later()", r"make_later\(\) is asynchronous: name a function that gives asyncio.run\(make_later\(\)\)"),
        ("make_badly()", r"make_badly\(\): it raised KeyError: 'no such key' \(.*agents_of_users.py:\d+"),
        ("make_and_exit()", r"make_and_exit\(\): it raised SystemExit: usage"),
        ("nothing()", r"module 'agents_of_users' has no 'nothing'"),
        ("make(1)", r"expected module:attribute"),
    ],
)
def test_a_factory_that_gives_no_agent_is_a_config_error(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name)


def test_what_a_factory_makes_must_be_an_agent() -> None:
    with pytest.raises(AdapterError, match="takes no input"):
        load("Silent()")
