"""CrewAI: a flow that routes to one of two crews, a manager that delegates, a guardrail, a flow's stream left."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from adapters.framework import KEY, MODEL, add
from adapters.patterns.pattern import QUESTION, Pattern
from crewai import LLM, Agent, Crew, Process, Task
from crewai.flow.flow import Flow, listen, router, start
from crewai.tools import tool
from pydantic import BaseModel
from stub_answers import text, tool_call

_storage = tempfile.TemporaryDirectory(prefix="crewai-")
os.environ.setdefault("CREWAI_STORAGE_DIR", _storage.name)  # crews in flows keep their last outputs there


def model(base_url: str, **options: Any) -> LLM:
    return LLM(model=MODEL, provider="openai", base_url=base_url, api_key=KEY, max_retries=0, **options)


def agent(role: str, llm: LLM, **options: Any) -> Agent:
    return Agent(role=role, goal="Answer.", backstory="You know numbers.", llm=llm, **options)


def crew(name: str, *agents: Agent) -> Crew:
    tasks = [
        Task(name=f"{one.role}'s", description="{question}", expected_output="A text.", agent=one) for one in agents
    ]
    return Crew(name=name, agents=list(agents), tasks=tasks)


class State(BaseModel):
    """What the flows are asked."""

    question: str = ""


def routed(base_url: str) -> Any:
    """A model says which crew is to answer, and a router sends the flow there."""
    chat = model(base_url)

    class Desk(Flow[State]):
        @start()
        def sort(self) -> str:
            return str(chat.call(f"A sum, or verse? {self.state.question}"))

        @router(sort)
        def choose(self, kind: str) -> str:
            return "sums" if "sum" in kind else "verse"

        @listen("sums")
        def calculate(self) -> str:
            adding = crew("sums", agent("adder", chat, tools=[tool("add")(add)]), agent("checker", chat))
            return str(adding.kickoff(inputs={"question": self.state.question}).raw)

        @listen("verse")
        def write(self) -> str:
            return str(crew("verse", agent("poet", chat)).kickoff(inputs={"question": self.state.question}).raw)

    return Desk


def managed(base_url: str) -> Any:
    """A hierarchy: the manager has no tools but to delegate, and says what comes of it."""
    chat = model(base_url)
    boss = agent("boss", chat, allow_delegation=True)
    work = Task(name="answer", description="{question}", expected_output="A number.")
    return Crew(
        name="office",
        agents=[agent("adder", chat), agent("poet", chat)],
        tasks=[work],
        process=Process.hierarchical,
        manager_agent=boss,
    )


def guarded(base_url: str) -> Any:
    """An answer that a guardrail does not let through is asked for again."""

    def is_number(output):  # CrewAI reads the annotations, which are texts in this file
        return (True, output.raw) if output.raw.isdigit() else (False, "Say the number alone.")

    adder = agent("adder", model(base_url))
    work = Task(name="sum", description="{question}", expected_output="A number.", agent=adder, guardrail=is_number)
    return Crew(name="sums", agents=[adder], tasks=[work])


def first_words(base_url: str) -> Any:
    """The words of a crew in a flow are streamed, and the reader has enough of them."""

    class Telling(Flow[State]):
        stream = True

        @start()
        def tell(self) -> str:
            teller = agent("teller", model(base_url, stream=True))
            return str(crew("tellers", teller).kickoff(inputs={"question": self.state.question}).raw)

    async def read(question: str) -> str:
        async for chunk in await Telling().kickoff_async(inputs={"question": question}):
            if chunk.content:
                return str(chunk.content)
        return ""

    return read


PATTERNS = {
    "routed": Pattern(
        make=routed,
        answers=[text("a sum"), tool_call("add", id="call_1", a=2, b=3), text("It is 5."), text("That is right.")],
        output="That is right.",
        outline=[
            "flow Desk [Desk]",
            "  node sort [sort]",
            "    llm chat policy [sort]",
            "  node choose [choose]",
            "  node calculate [calculate]",
            "    crew sums [sums]",
            "      task adder's [adder]",
            "        agent adder [adder]",
            "          llm chat policy [adder]",
            "          tool add [adder]",
            "          llm chat policy [adder]",
            "      task checker's [checker]",
            "        agent checker [checker]",
            "          llm chat policy [checker]",
        ],
        tools=[("add", "call_1", {"a": 2, "b": 3}, ...)],
    ),
    "managed": Pattern(
        make=managed,
        answers=[
            tool_call("delegate_work_to_coworker", id="call_1", task=QUESTION, context="None.", coworker="adder"),
            text("5"),
            text("It is 5."),
        ],
        output="It is 5.",
        outline=[
            "crew office [office]",
            "  task answer [boss]",
            "    agent boss [boss]",
            "      llm chat policy [boss]",
            "      handoff adder [boss]",
            "        agent adder [adder]",
            "          llm chat policy [adder]",
            "      llm chat policy [boss]",
        ],
        tools=[("adder", "call_1", {"task": QUESTION, "context": "None.", "coworker": "adder"}, "5")],
    ),
    "guarded": Pattern(
        make=guarded,
        answers=[text("It is 5."), text("5")],
        output="'output': '5'",
        outline=[
            "crew sums [sums]",
            "  task sum [adder]",
            "    agent adder [adder]",
            "      llm chat policy [adder]",
            "    annotation guardrail [adder]",
            "    agent adder [adder]",
            "      llm chat policy [adder]",
            "    annotation guardrail [adder]",
        ],
    ),
    "first_words": Pattern(
        make=first_words,
        answers=[text("One, two, three, four, five, six, seven, eight.")],
        output="O",
        outline=[
            "function read [read]",
            "  flow Telling [Telling]",
            "    node tell [tell]",
            "      crew tellers [tellers]",
            "        task teller's [teller]",
            "          agent teller [teller]",
            "            llm chat policy [teller]",
        ],
        left=True,
    ),
}
