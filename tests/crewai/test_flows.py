"""Flows: their methods, the crews and agents in them, and a flow anew for each rollout."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from crewai.flow.flow import Flow, listen, router, start
from pydantic import BaseModel
from stub_answers import Received, text

from agentlightning.errors import AdapterError


class State(BaseModel):
    question: str = ""


class Both(BaseModel):
    question: str = ""
    answer: str = ""


def office(made: Any) -> type:
    class Office(Flow[State]):
        @start()
        def draft(self) -> str:
            return made.model().call(self.state.question)

        @router(draft)
        async def triage(self) -> str:
            return "to answer"

        @listen("to answer")
        def answer(self) -> Any:
            tasks = made.task(made.agent("writer")), made.task(made.agent("critic"), "Is it right?")
            return made.crew(*tasks).kickoff(inputs={"question": self.state.question})

    return Office


async def test_the_methods_of_a_flow_and_what_they_do(adapter, rollout, stub, made):
    stub.reply(text("a draft"), text("a better one"), text("an answer"))
    with rollout() as recorded:
        output = await adapter.run(office(made)(), "Who?")
    assert output["output"] == "an answer"
    assert recorded.outline() == [
        "flow Office [Office]",
        "  node draft [draft]",
        "    llm chat stub-model [draft]",
        "  node triage [triage]",
        "  node answer [answer]",
        "    crew team [team]",
        "      task Who? [writer]",
        "        agent writer [writer]",
        "          llm chat stub-model [writer]",
        "      task Is it right? [critic]",
        "        agent critic [critic]",
        "          llm chat stub-model [critic]",
    ]


async def test_a_class_of_flows_is_an_agent_too(adapter, rollout, stub, made):
    with rollout() as recorded:
        await adapter.run(office(made), {"question": "Who?"})
    assert recorded.outline()[0] == "flow Office [Office]"


async def test_flows_at_once_each_have_a_state_of_their_own(adapter, rollout, stub, made):
    stub.reply(lambda request: text(request.json["messages"][-1]["content"]))

    class Twice(Flow):
        @start()
        def first(self) -> str:
            assert "said" not in self.state, "what another rollout left"
            self.state["said"] = made.model().call(self.state["question"])
            return self.state["said"]

        @listen(first)
        def second(self, said: str) -> Any:
            return {"said": made.model().call(said + "!"), "state": self.state["said"]}

    flow = Twice()

    async def run(number: int) -> Any:
        with rollout(f"r{number}") as recorded:
            output = await adapter.run(flow, {"question": f"q{number}"})
        return output, recorded

    for number, (output, recorded) in enumerate(await asyncio.gather(*map(run, range(16)))):
        assert output == {"said": f"q{number}!", "state": f"q{number}"}
        assert [call.generation.response["content"] for call in recorded.all("llm")] == [f"q{number}", f"q{number}!"]


async def test_a_method_that_raises(adapter, rollout, stub, made):
    class Broken(Flow[State]):
        @start()
        def work(self) -> str:
            raise ValueError("no work today")

    with rollout() as recorded, pytest.raises(ValueError, match="no work"):
        await adapter.run(Broken(), "?")
    assert recorded.outline() == ["flow Broken [Broken] !agent_error", "  node work [work] !agent_error"]
    assert {span.failure.exception for span in recorded.spans} == {"builtins.ValueError"}


async def test_listeners_at_once_keep_their_calls_apart(adapter, rollout, stub, made):
    def echo(request: Received) -> Any:
        return text(request.json["messages"][-1]["content"])

    stub.reply(echo)

    class Fan(Flow[State]):
        @start()
        def begin(self) -> str:
            return "go"

        @listen(begin)
        def left(self) -> str:
            return made.model().call("left")

        @listen(begin)
        def right(self) -> str:
            return made.model().call("right")

    with rollout() as recorded:
        await adapter.run(Fan, "?")
    assert {call.agent: call.generation.response["content"] for call in recorded.all("llm")} == {
        "left": "left",
        "right": "right",
    }


async def test_an_input_that_does_not_fit_is_an_error_that_names_the_keys(adapter):
    class Answering(Flow[Both]):
        @start()
        def answer(self) -> str:
            return self.state.question.upper()

    assert await adapter.run(Answering, {"question": "so?"}) == "SO?"
    with pytest.raises(AdapterError, match=r"'Answering'.*question, answer.*is a str: give \{'question': …"):
        await adapter.run(Answering, "so?")


async def test_a_flow_that_cannot_be_made_anew_is_an_error_that_says_so(adapter):
    class Given(Flow):
        def __init__(self, answer: str) -> None:
            super().__init__()
            self.answer = answer

        @start()
        def say(self) -> str:
            return self.answer

    with pytest.raises(AdapterError, match="'Given' cannot be made anew"):
        await adapter.run(Given("yes"), {})
