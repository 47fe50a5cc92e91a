"""A solver with a calculator and a teacher, as nodes of a graph. They know nothing of who trains them."""

import operator
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@tool
def calculator(expression: str) -> str:
    """Works out an arithmetic expression, such as 3 + 4."""
    left, operation, right = expression.split()
    return f"{OPERATIONS[operation](float(left), float(right)):.10g}"


def solved(question: str, expression: str, result: str) -> list[AnyMessage]:
    """A worked example for the solver."""
    call = {"name": "calculator", "args": {"expression": expression}, "id": f"call {expression}"}
    return [
        HumanMessage(question),
        AIMessage("", tool_calls=[call]),
        ToolMessage(result, tool_call_id=call["id"]),
        AIMessage(result),
    ]


SOLVER: list[AnyMessage] = [
    SystemMessage("Use the calculator, then say the number."),
    *solved("Tom has 3 red pens and 4 blue pens. How many pens does he have?", "3 + 4", "7"),
    *solved("A box holds 6 eggs. How many eggs are in 5 boxes?", "6 * 5", "30"),
    *solved("Sue had 9 balls and gave 2 to Max. How many balls does Sue still have?", "9 - 2", "7"),
]
TEACHER: list[AnyMessage] = [
    SystemMessage("Say the answer in one short sentence."),
    HumanMessage("Tom has 3 red pens and 4 blue pens. How many pens does he have? 7"),
    AIMessage("Tom has 7 pens."),
    HumanMessage("A box holds 6 eggs. How many eggs are in 5 boxes? 30"),
    AIMessage("There are 30 eggs."),
]

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=48)
calculating = model.bind_tools([calculator])


async def solver(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await calculating.ainvoke(SOLVER + state["messages"])]}


async def teacher(state: MessagesState) -> dict[str, Any]:
    question, *_, result = state["messages"]
    return {"messages": [await model.ainvoke([*TEACHER, HumanMessage(f"{question.text} {result.text}")])]}


def after_solver(state: MessagesState) -> str:
    """At most two rounds of the calculator."""
    return "tools" if state["messages"][-1].tool_calls and len(state["messages"]) < 6 else "teacher"


graph = (
    StateGraph(MessagesState)
    .add_node("solver", solver)
    .add_node("tools", ToolNode([calculator], handle_tool_errors=True))
    .add_node("teacher", teacher)
    .add_edge(START, "solver")
    .add_conditional_edges("solver", after_solver, ["tools", "teacher"])
    .add_edge("tools", "solver")
    .add_edge("teacher", END)
    .compile(name="homework")
)
