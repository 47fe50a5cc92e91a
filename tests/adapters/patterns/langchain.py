"""LangChain: a chain whose words are read and left, an agent with middleware and an answer of a type."""

from __future__ import annotations

from typing import Any

from adapters.framework import add
from adapters.patterns.langgraph import model
from adapters.patterns.pattern import Pattern
from langchain.agents import create_agent
from langchain.agents.middleware import before_model, wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel
from stub_answers import text, tool_call


def first_words(base_url: str) -> Any:

    async def read(question: str) -> str:
        prompt = ChatPromptTemplate.from_template("Answer slowly: {question}")
        teller = (prompt | model(base_url) | StrOutputParser()).with_config(run_name="teller")
        async for words in teller.astream({"question": question}):
            if words:
                return words
        return ""

    return read


def typed_answer(base_url: str) -> Any:
    """Middleware looks at what goes to the model and wraps its call; the answer is read from a tool's call."""

    class Sum(BaseModel):
        """The sum that was asked for."""

        value: int

    @before_model
    def look(state: Any, runtime: Any) -> None:
        """Looks at what was said so far."""

    @wrap_model_call
    async def again(request: Any, handler: Any) -> Any:
        return await handler(request)

    return create_agent(
        model(base_url), [add], middleware=[look, again], response_format=ToolStrategy(Sum), name="accountant"
    )


PATTERNS = {
    "first_words": Pattern(
        make=first_words,
        answers=[text("One, two, three, four, five.")],
        output="O",
        outline=["function read [read]", "  chain teller [teller]", "    llm chat policy [teller]"],
        left=True,
    ),
    "typed_answer": Pattern(
        make=typed_answer,
        answers=[tool_call("add", id="call_1", a=2, b=3), tool_call("Sum", id="call_2", value=5)],
        output="'value': 5",
        outline=[
            "agent accountant [accountant]",
            "  node look.before_model [accountant]",
            "  node model [accountant]",
            "    llm chat policy [accountant]",
            "  node tools [accountant]",
            "    tool add [accountant]",
            "  node look.before_model [accountant]",
            "  node model [accountant]",
            "    llm chat policy [accountant]",
        ],
        tools=[("add", "call_1", {"a": 2, "b": 3}, "5")],
    ),
}
