"""A function that solves word problems with a model and a calculator. It knows nothing of who trains it."""

import json
import operator
from typing import Any

from openai import AsyncOpenAI

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


def solved(question: str, expression: str, result: str) -> list[dict[str, Any]]:
    """A worked example."""
    function = {"name": "calculator", "arguments": f'{{"expression": "{expression}"}}'}
    call = {"id": f"call {expression}", "type": "function", "function": function}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": result},
        {"role": "assistant", "content": f"The answer is {result}."},
    ]


INSTRUCTIONS: list[dict[str, Any]] = [
    {"role": "system", "content": "Use the calculator, then say the answer."},
    *solved("Tom has 3 red pens and 4 blue pens. How many pens does he have?", "3 + 4", "7"),
    *solved("A box holds 6 eggs. How many eggs are in 5 boxes?", "6 * 5", "30"),
    *solved("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?", "9 - 2", "7"),
]
TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": calculator.__doc__,
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}

client = AsyncOpenAI()


def result_of(arguments: str) -> str:
    try:
        return calculator(**json.loads(arguments))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"error: {error}"


async def solve(question: str) -> str:
    messages = [*INSTRUCTIONS, {"role": "user", "content": question}]
    for _ in range(3):
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=messages, tools=[TOOL], max_tokens=48
        )
        said = completion.choices[0].message
        if not said.tool_calls:
            return said.content or ""
        messages.append(said.to_dict())
        for call in said.tool_calls:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result_of(call.function.arguments)})
    return ""
