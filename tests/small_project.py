"""A small run of the real thing: a LangGraph agent, a tiny model, GRPO, in a folder of its own."""

import json
from pathlib import Path

AGENT = '''
"""Asks its model, shows it a tool's result, and asks again. Imports nothing of who trains it."""
from typing import Annotated, TypedDict

from langchain_core.messages import AnyMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


model = ChatOpenAI(model="gpt-4o-mini", max_tokens=12)


async def think(state: State) -> State:
    return {"messages": [await model.ainvoke(state["messages"])]}


async def look_up(state: State) -> State:
    return {"messages": [ToolMessage("it is 7 .", tool_call_id="call")]}


graph = (
    StateGraph(State)
    .add_node("think", think)
    .add_node("look_up", look_up)
    .add_node("answer", think)
    .add_edge(START, "think")
    .add_edge("think", "look_up")
    .add_edge("look_up", "answer")
    .add_edge("answer", END)
    .compile(name="two_turns")
)


def score(rollout, task):
    """Something that random text gets right now and then."""
    return float(len(str(rollout.output["messages"][-1]["content"])) % 2)
'''


def make_project(folder: Path, model: Path) -> Path:
    """Writes agent, tasks and config into a folder, where ``agl train config.yaml`` runs; returns it."""
    (folder / "two_turns.py").write_text(AGENT, encoding="utf-8")
    lines = [json.dumps({"id": f"t{number}", "input": f"question {number}"}) for number in range(6)]
    (folder / "tasks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = {
        "agent": "two_turns:graph",
        "tasks": {"train": "tasks.jsonl", "held_out": "tasks.jsonl"},
        "reward": "two_turns:score",
        "algorithm": {
            "name": "grpo",
            "model": {"path": str(model)},
            "steps": 4,
            "batch_tasks": 2,
            "group_size": 4,
            "lr": 1e-3,
            "checkpoint_every": 2,
        },
        "store": "sqlite:///store.db",
        "name": "small",
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    return folder
