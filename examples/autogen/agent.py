"""A solver with a calculator, and a teacher who tells the answer. They know nothing of who trains them."""

import operator

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import FunctionCall
from autogen_core.model_context import UnboundedChatCompletionContext
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    UserMessage,
)
from autogen_ext.models.openai import OpenAIChatCompletionClient

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


def solved(question: str, expression: str, result: str) -> list[LLMMessage]:
    """A worked example for the solver."""
    call = FunctionCall(id=f"call {expression}", name="calculator", arguments=f'{{"expression": "{expression}"}}')
    told = FunctionExecutionResult(content=result, name="calculator", call_id=call.id, is_error=False)
    return [
        UserMessage(content=question, source="user"),
        AssistantMessage(content=[call], source="solver"),
        FunctionExecutionResultMessage(content=[told]),
        AssistantMessage(content=result, source="solver"),
    ]


EXAMPLES = [
    *solved("Tom has 3 red pens and 4 blue pens. How many pens does he have?", "3 + 4", "7"),
    *solved("A box holds 6 eggs. How many eggs are in 5 boxes?", "6 * 5", "30"),
    *solved("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?", "9 - 2", "7"),
]

model = OpenAIChatCompletionClient(model="gpt-4o-mini", max_tokens=48)

solver = AssistantAgent(
    "solver",
    model,
    tools=[calculator],
    system_message="Use the calculator, then say the number.",
    model_context=UnboundedChatCompletionContext(initial_messages=EXAMPLES),
    max_tool_iterations=3,
)
teacher = AssistantAgent(
    "teacher",
    model,
    system_message="Say the answer in one short sentence.",
)
team = RoundRobinGroupChat([solver, teacher], name="homework", max_turns=2)
