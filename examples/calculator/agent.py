"""A LangGraph agent that answers word problems with a calculator. It knows nothing of who trains it."""

import ast
import operator
from typing import Annotated, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, tools_condition


def example(question: str, expression: str, result: str) -> list[AnyMessage]:
    call = {"name": "calculator", "args": {"expression": expression}, "id": f"example_{result}"}
    return [
        HumanMessage(question),
        AIMessage("", tool_calls=[call]),
        ToolMessage(result, tool_call_id=call["id"]),
        AIMessage(f"The answer is {result}."),
    ]


INSTRUCTIONS: list[AnyMessage] = [
    SystemMessage("Use the calculator, then say the answer."),
    *example("Tom has 3 red pens and 4 blue pens. How many pens does he have?", "3 + 4", "7"),
    *example("A box holds 6 eggs. How many eggs are in 5 boxes?", "6 * 5", "30"),
    *example("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?", "9 - 2", "7"),
]

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def evaluate(node: ast.AST) -> float:
    match node:
        case ast.Expression(body=body):
            return evaluate(body)
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(operand))
    raise ValueError("only numbers and + - * / are understood")


@tool
def calculator(expression: str) -> str:
    """Works out an arithmetic expression."""
    try:
        return f"{evaluate(ast.parse(expression.strip(), mode='eval')):.10g}"
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError) as error:
        return f"error: {error}"


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


model = ChatOpenAI(model="gpt-4o-mini", max_tokens=48).bind_tools([calculator])


async def answer(state: State) -> State:
    return {"messages": [await model.ainvoke(INSTRUCTIONS + state["messages"])]}


def after_model(state: State) -> str:
    """One calculation a question; what comes after it is the answer."""
    return END if isinstance(state["messages"][-2:][0], ToolMessage) else tools_condition(state)


graph = (
    StateGraph(State)
    .add_node("model", answer)
    .add_node("tools", ToolNode([calculator]))
    .add_edge(START, "model")
    .add_conditional_edges("model", after_model, ["tools", END])
    .add_edge("tools", "model")
    .compile(name="calculator")
)
