"""A planner writes the calculation, a calculator works it out, and a writer says what the number counts.

They know nothing of who trains them."""

import ast
import operator
from typing import TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

PLANNER: list[AnyMessage] = [
    SystemMessage("Write the calculation."),
    HumanMessage("Tom has 3 red pens and 4 blue pens. How many pens does he have?"),
    AIMessage("3 + 4"),
    HumanMessage("A box holds 6 eggs. How many eggs are in 5 boxes?"),
    AIMessage("6 * 5"),
    HumanMessage("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?"),
    AIMessage("9 - 2"),
]
WRITER: list[AnyMessage] = [
    SystemMessage("Say how many, and of what."),
    HumanMessage("Tom has 3 red pens and 4 blue pens. How many pens does he have? 7"),
    AIMessage("7 pens"),
    HumanMessage("A box holds 6 eggs. How many eggs are in 5 boxes? 30"),
    AIMessage("30 eggs"),
]
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=16, stop=["=", "\n"])


class State(TypedDict, total=False):
    question: str
    calculation: str
    result: str
    answer: str


async def planner(state: State) -> State:
    said = await model.ainvoke([*PLANNER, HumanMessage(state["question"])])
    return {"calculation": said.text}


def calculator(state: State) -> State:
    try:
        return {"result": f"{evaluate(ast.parse(state['calculation'].strip(), mode='eval').body):.10g}"}
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError):
        return {"result": ""}


def evaluate(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError("only numbers and + - * / are understood")


async def writer(state: State) -> State:
    said = await model.ainvoke([*WRITER, HumanMessage(f"{state['question']} {state['result']}")])
    return {"answer": said.text}


def after_calculator(state: State) -> str:
    """What is no calculation has no result to be told."""
    return "writer" if state["result"] else END


graph = (
    StateGraph(State)
    .add_node("planner", planner)
    .add_node("calculator", calculator)
    .add_node("writer", writer)
    .add_edge(START, "planner")
    .add_edge("planner", "calculator")
    .add_conditional_edges("calculator", after_calculator, ["writer", END])
    .add_edge("writer", END)
    .compile(name="homework")
)
