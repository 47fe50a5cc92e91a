"""A pupil who works through a sheet of word problems in one chat: each answer is a calculation, worked out by a
calculator. The teacher looks at the first alone. The pupil knows nothing of who trains it."""

import ast
import operator
from typing import TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

EXAMPLES: list[AnyMessage] = [
    SystemMessage("Write the calculation."),
    HumanMessage("Tom has 3 red pens and 4 blue pens. How many pens does he have?"),
    AIMessage("3 + 4"),
    HumanMessage("A box holds 6 eggs. How many eggs are in 5 boxes?"),
    AIMessage("6 * 5"),
    HumanMessage("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?"),
    AIMessage("9 - 2"),
]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=12, stop=["=", "\n"])


class State(TypedDict, total=False):
    sheet: list[str]
    results: list[str]


async def pupil(state: State) -> State:
    messages, results = [*EXAMPLES], []
    for question in state["sheet"]:
        messages.append(HumanMessage(question))
        said = await model.ainvoke(messages)
        messages.append(said)
        results.append(work_out(said.text))
    return {"results": results}


def work_out(calculation: str) -> str:
    try:
        return f"{evaluate(ast.parse(calculation.strip(), mode='eval').body):.10g}"
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return "unclear"


def evaluate(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError("only numbers and + - * / are understood")


graph = (
    StateGraph(State).add_node("pupil", pupil).add_edge(START, "pupil").add_edge("pupil", END).compile(name="homework")
)
