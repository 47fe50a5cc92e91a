"""OpenAI Agents SDK: an approval and what comes after it, agents as tools, triage behind a guardrail, a stream left."""

from __future__ import annotations

from typing import Any

from adapters.framework import KEY, MODEL, add
from adapters.patterns.pattern import Pattern
from agents import (
    Agent,
    GuardrailFunctionOutput,
    OpenAIResponsesModel,
    RunContextWrapper,
    Runner,
    RunState,
    function_tool,
    input_guardrail,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from stub_answers import Answer, Received, text, tool_call


def model(base_url: str) -> OpenAIResponsesModel:
    return OpenAIResponsesModel(MODEL, AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0))


def approval(base_url: str) -> Any:
    """A run stops for an approval, its state is stored, and it goes on from there."""

    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        """Pays an amount."""
        return f"paid {amount}"

    clerk = Agent("clerk", instructions="Pay what is asked.", tools=[pay], model=model(base_url))

    async def desk(question: str) -> str:
        result = await Runner.run(clerk, question)
        while result.interruptions:
            state = await RunState.from_string(clerk, result.to_state().to_string())
            for asked in state.get_interruptions():
                state.approve(asked)
            result = await Runner.run(clerk, state)
        return str(result.final_output)

    return desk


def agents_as_tools(base_url: str) -> Any:
    """A translator asks others by tools, and keeps the conversation."""
    chat = model(base_url)
    spanish = Agent("spanish", instructions="Say it in Spanish.", model=chat)
    adder = Agent("adder", instructions="Add.", tools=[function_tool(add)], model=chat)
    return Agent(
        "translator",
        instructions="Use the tools.",
        model=chat,
        tools=[
            adder.as_tool("work_out", "Works a sum out."),
            spanish.as_tool("say_in_spanish", "Says it in Spanish."),
        ],
    )


def triage(base_url: str) -> Any:
    """A guardrail has an agent of its own look at what is asked, while triage hands over to who can answer."""
    chat = model(base_url)

    class Judgement(BaseModel):
        """Whether it is a sum."""

        is_sum: bool

    judge = Agent("judge", instructions="Is it a sum?", output_type=Judgement, model=chat)

    @input_guardrail(run_in_parallel=False)
    async def sums_only(
        context: RunContextWrapper[None], agent: Agent[None], given: str | list[Any]
    ) -> GuardrailFunctionOutput:
        judgement = (await Runner.run(judge, given, context=context.context)).final_output
        return GuardrailFunctionOutput(judgement, tripwire_triggered=not judgement.is_sum)

    adder = Agent("adder", handoff_description="Adds.", instructions="Add.", tools=[function_tool(add)], model=chat)
    poet = Agent("poet", handoff_description="Writes verse.", instructions="Write.", model=chat)
    return Agent("triage", instructions="Hand over.", handoffs=[adder, poet], input_guardrails=[sums_only], model=chat)


def first_words(base_url: str) -> Any:
    """Words are streamed, and the reader has enough of them."""
    teller = Agent("teller", instructions="Count.", model=model(base_url))

    async def read(question: str) -> str:
        async for event in Runner.run_streamed(teller, question).stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                return str(event.data.delta)
        return ""

    return read


def says(request: Received) -> Answer:
    """What each agent of the triage says, by its instructions."""
    asked, results = request.json["instructions"], [item for item in request.json["input"] if "call_id" in item]
    if asked == "Is it a sum?":
        return text('{"is_sum": true}')
    if asked == "Hand over.":
        return tool_call("transfer_to_adder", id="call_1")
    return text("It is 5.") if len(results) > 2 else tool_call("add", id="call_2", a=2, b=3)


PATTERNS = {
    "approval": Pattern(
        make=approval,
        answers=[tool_call("pay", id="call_1", amount=7), text("It is paid.")],
        output="It is paid.",
        outline=[
            "function desk [desk]",
            "  workflow Agent workflow [Agent workflow]",
            "    agent clerk [clerk]",
            "      turn turn 1 [clerk]",
            "        llm chat policy [clerk]",
            "        tool pay [clerk]",
            "    agent clerk [clerk]",
            "      turn turn 2 [clerk]",
            "        llm chat policy [clerk]",
        ],
        tools=[("pay", "call_1", {"amount": 7}, "paid 7")],
    ),
    "agents_as_tools": Pattern(
        make=agents_as_tools,
        answers=[
            tool_call("work_out", id="call_1", input="2 + 3"),
            tool_call("add", id="call_2", a=2, b=3),
            text("5"),
            tool_call("say_in_spanish", id="call_3", input="5"),
            text("Cinco."),
            text("Es cinco."),
        ],
        output="Es cinco.",
        outline=[
            "workflow Agent workflow [Agent workflow]",
            "  agent translator [translator]",
            "    turn turn 1 [translator]",
            "      llm chat policy [translator]",
            "      tool work_out [translator]",
            "        agent adder [adder]",
            "          turn turn 1 [adder]",
            "            llm chat policy [adder]",
            "            tool add [adder]",
            "          turn turn 2 [adder]",
            "            llm chat policy [adder]",
            "    turn turn 2 [translator]",
            "      llm chat policy [translator]",
            "      tool say_in_spanish [translator]",
            "        agent spanish [spanish]",
            "          turn turn 1 [spanish]",
            "            llm chat policy [spanish]",
            "    turn turn 3 [translator]",
            "      llm chat policy [translator]",
        ],
        tools=[
            ("work_out", "call_1", {"input": "2 + 3"}, "5"),
            ("add", "call_2", {"a": 2, "b": 3}, 5),
            ("say_in_spanish", "call_3", {"input": "5"}, "Cinco."),
        ],
    ),
    "triage": Pattern(
        make=triage,
        answers=says,
        output="It is 5.",
        outline=[
            "workflow Agent workflow [Agent workflow]",
            "  agent triage [triage]",
            "    turn turn 1 [triage]",
            "      guardrail sums_only [sums_only]",
            "        agent judge [judge]",
            "          turn turn 1 [judge]",
            "            llm chat policy [judge]",
            "      llm chat policy [triage]",
            "      handoff adder [triage]",
            "  agent adder [adder]",
            "    turn turn 2 [adder]",
            "      llm chat policy [adder]",
            "      tool add [adder]",
            "    turn turn 3 [adder]",
            "      llm chat policy [adder]",
        ],
        tools=[("adder", "call_1", {}, None), ("add", "call_2", {"a": 2, "b": 3}, 5)],
    ),
    "first_words": Pattern(
        make=first_words,
        answers=[text("One, two, three, four, five.")],
        output="O",
        outline=[
            "function read [read]",
            "  workflow Agent workflow [Agent workflow]",
            "    agent teller [teller]",
            "      turn turn 1 [teller]",
            "        llm chat policy [teller]",
        ],
        left=True,
    ),
}
