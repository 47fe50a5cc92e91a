"""A solver with a calculator, and a checker who may send it back once. They know nothing of who trains them."""

import operator

from agents import Agent, ModelSettings, Runner, TResponseInputItem, function_tool, trace

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@function_tool
def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


def user(text: str) -> TResponseInputItem:
    return {"role": "user", "content": text}


def solved(question: str, expression: str, result: str) -> list[TResponseInputItem]:
    """A worked example for the solver."""
    call_id, arguments = f"call {expression}", f'{{"expression": "{expression}"}}'
    return [
        user(question),
        {"type": "function_call", "call_id": call_id, "name": "calculator", "arguments": arguments},
        {"type": "function_call_output", "call_id": call_id, "output": result},
        {"role": "assistant", "content": f"The answer is {result}."},
    ]


def checked(question: str, answer: str, verdict: str) -> list[TResponseInputItem]:
    """A worked example for the checker."""
    return [user(f"{question} {answer}"), {"role": "assistant", "content": verdict}]


PENS = "Tom has 3 red pens and 4 blue pens. How many pens does he have?"
EGGS = "A box holds 6 eggs. How many eggs are in 5 boxes?"
BALLS = "Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?"
SOLVED = [*solved(PENS, "3 + 4", "7"), *solved(EGGS, "6 * 5", "30"), *solved(BALLS, "9 - 2", "7")]
CHECKED = [*checked(PENS, "The answer is 7.", "Yes."), *checked(EGGS, "The answer is 11.", "No.")]

short = ModelSettings(max_tokens=48)
solver = Agent(
    "solver",
    instructions="Use the calculator, then say the answer.",
    tools=[calculator],
    model="gpt-4o-mini",
    model_settings=short,
)
checker = Agent("checker", instructions="Is the answer right?", model="gpt-4o-mini", model_settings=short)


async def solve(question: str) -> str:
    with trace("homework"):
        result = await Runner.run(solver, [*SOLVED, user(question)], max_turns=4)
        verdict = await Runner.run(checker, [*CHECKED, user(f"{question} {result.final_output}")])
        if verdict.final_output.startswith("No"):
            again = [*result.to_input_list(), user("That is not right. Try again.")]
            result = await Runner.run(solver, again, max_turns=4)
    return result.final_output
