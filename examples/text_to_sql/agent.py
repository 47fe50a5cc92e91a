"""A LangGraph agent that answers questions with SQL: it writes a query, executes it, checks what comes back, and writes
another one where that was an error or nothing. It knows nothing of who trains it.

``python agent.py zoo "How many animals are there?"``
"""

import sys
from typing import Literal, TypedDict

from database import QueryError, describe, extract_sql, path_of, run_query
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from prompts import SYSTEM, ask, ask_again

MOST_REWRITES = 1
SHOWN_ROWS = 20

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=64, stop=[";"])


class State(TypedDict, total=False):
    question: str
    database: str
    sql: str
    rows: list[list]
    problem: str
    rewrites: int


def question_of(state: State) -> list[AnyMessage]:
    schema = describe(path_of(state["database"]))
    return [SystemMessage(SYSTEM), HumanMessage(ask(schema, state["question"]))]


async def write(state: State) -> State:
    answer = await model.ainvoke(question_of(state))
    return {"sql": extract_sql(answer.text), "rewrites": 0}


def execute(state: State) -> State:
    try:
        rows = run_query(path_of(state["database"]), state["sql"])
    except QueryError as error:
        return {"rows": [], "problem": str(error)}
    return {"rows": [list(row) for row in rows[:SHOWN_ROWS]], "problem": "" if rows else "it finds nothing"}


def check(state: State) -> Literal["rewrite", "__end__"]:
    return "rewrite" if state["problem"] and state["rewrites"] < MOST_REWRITES else END


async def rewrite(state: State) -> State:
    wrong = [AIMessage(state["sql"]), HumanMessage(ask_again(state["problem"]))]
    answer = await model.ainvoke([*question_of(state), *wrong])
    return {"sql": extract_sql(answer.text), "rewrites": state["rewrites"] + 1}


graph = (
    StateGraph(State)
    .add_node("write", write)
    .add_node("execute", execute)
    .add_node("rewrite", rewrite)
    .add_edge(START, "write")
    .add_edge("write", "execute")
    .add_conditional_edges("execute", check)
    .add_edge("rewrite", "execute")
    .compile(name="text_to_sql")
)

if __name__ == "__main__":
    import asyncio

    database, question = sys.argv[1:]
    answer = asyncio.run(graph.ainvoke({"database": database, "question": question}))
    print(answer["sql"], *answer["rows"], answer["problem"], sep="\n")
