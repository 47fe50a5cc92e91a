"""Which agents the adapter takes, how it hands them a task, what it gives back, and what it costs to load."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.sandbox import SandboxAgent
from pydantic import BaseModel
from stub_answers import text

from agentlightning.errors import AdapterError
from agentlightning_openai_agents.adapter import to_plain


def test_it_takes_agents_and_nothing_else(adapter):
    assert adapter.accepts(Agent("solver"))
    assert adapter.accepts(SandboxAgent("coder"))
    assert not adapter.accepts(Agent)
    assert not adapter.accepts(str.upper)
    assert not adapter.accepts("agent")


def test_a_package_of_the_users_own_that_is_called_agents_is_none_of_ours(adapter, monkeypatch):
    class Agent:
        pass

    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("agents", "agents.agent", "agents.tracing"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(Agent=Agent))
    adapter.uninstall()
    adapter.install()
    assert not adapter.accepts(Agent())


async def test_a_string_is_the_question_and_the_answer_is_a_string(adapter, make, stub):
    stub.reply(text("It is 5."))
    assert await adapter.run(make("solver"), "What is 2 + 3?") == "It is 5."


async def test_a_list_is_the_messages(adapter, make, stub):
    stub.reply(text("It is 5."))
    messages = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "What is 2 + 3?"}]
    await adapter.run(make("solver"), messages)
    assert [item["content"] for item in stub.requests[0].json["input"]] == ["Hi", "What is 2 + 3?"]


class Sum(BaseModel):
    total: int


async def test_an_agent_with_an_output_type_gives_a_mapping(adapter, make, stub):
    stub.reply(text('{"total": 5}'))
    assert await adapter.run(make("solver", output_type=Sum), "What is 2 + 3?") == {"total": 5}


@dataclass
class Plan:
    steps: tuple[Sum, ...]


class Endless:
    def __str__(self) -> str:
        return "no end"


def test_the_output_is_plain_data():
    assert to_plain(Plan((Sum(total=1),))) == {"steps": [{"total": 1}]}
    assert to_plain({"who": Endless(), "raw": b"\xff"}) == {"who": "no end", "raw": "_w=="}
    assert to_plain(None) is None
    circle: list[Any] = []
    circle.append(circle)
    assert to_plain(circle) == "[[...]]"


@pytest.mark.parametrize(("input", "what"), [({"q": "?"}, "a dict"), (7, "a int"), ([], "an empty list")])
async def test_an_input_that_does_not_fit_is_an_error_that_says_what_would(adapter, make, input, what):
    with pytest.raises(AdapterError, match=rf"'solver' takes a text or a list of messages.*{what}.*name a function"):
        await adapter.run(make("solver"), input)


async def test_a_sandbox_agent_is_an_error_that_says_how_to_run_it(adapter):
    with pytest.raises(AdapterError, match=r"'coder' is a SandboxAgent.*RunConfig\(sandbox=…\)"):
        await adapter.run(SandboxAgent("coder"), "Write it.")


async def test_a_run_that_waits_for_an_approval_gives_what_it_would_do(adapter, make, stub, calls):
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        """Pays."""
        return "paid"

    stub.reply(calls(("pay", '{"amount": 7}')))
    output = await adapter.run(make("clerk", tools=[pay]), "Pay 7.")
    assert output == {"interruptions": [{"tool": "pay", "arguments": '{"amount": 7}'}]}


async def test_one_run_sees_nothing_of_another(adapter, make, stub):
    agent = make("solver")
    stub.reply(lambda request: text(str(len(request.json["input"]))))
    assert await asyncio.gather(*(adapter.run(agent, f"question {n}") for n in range(4))) == ["1"] * 4
    assert await adapter.run(agent, "another") == "1"


async def test_what_an_agent_raises_passes_through(adapter, make, stub, calls):
    @function_tool(failure_error_function=None)
    def fail() -> str:
        """Fails."""
        raise ValueError("broken")

    stub.reply(calls(("fail", "{}")))
    with pytest.raises(Exception, match="broken") as raised:
        await adapter.run(make("solver", tools=[fail]), "?")
    assert isinstance(raised.value.__cause__, ValueError)
