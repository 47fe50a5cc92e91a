"""A task whose answer depends on the prompt alone, an agent that asks for its prompt by name, and a scripted model that
reflects: what searches over prompts are held to.

A task has a kind; the agent gets it right where the prompt names that kind. The scripted model adds the kind of one of
the failures that it was shown, and now and then drops one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stub_answers import Answer, Received, text
from stub_server import StubServer

import agentlightning as agl
from agentlightning import Task, Trainer
from agentlightning.records import Rollout

KINDS = ("apple", "brick", "cloud", "drum", "eagle", "fern")
OWN = "Rules: apple"
FIELDED = "Rules: apple. Answer {question}."


def tasks(count: int) -> list[Task]:
    return [
        Task(id=f"t{number}", input=f"{KINDS[number % len(KINDS)]} question {number}", expected="right")
        for number in range(count)
    ]


async def agent(question: str) -> str:
    return "right" if is_right(agl.prompt("rules", OWN), question) else "wrong"


async def agent_with_a_field(question: str) -> str:
    prompt = agl.prompt("rules", FIELDED)
    assert question in prompt.format(question=question)
    return "right" if is_right(prompt, question) else "wrong"


def is_right(prompt: str, question: str) -> bool:
    return question.split()[0] in re.findall(r"\w+", prompt)


def score(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == "right")


def improved(prompt: str) -> str:
    """What the scripted model makes of a reflection prompt: the instruction in its first block, with a kind more or
    less."""
    instruction = prompt.split("```")[1].strip()
    failed = [
        match[1]
        for example in re.split(r"^# Example", prompt, flags=re.MULTILINE)[1:]
        if "Score: 0" in example and (match := re.search(r"(\w+) question", example))
    ]
    digest = hashlib.blake2b(f"{instruction}{failed}".encode(), digest_size=2).digest()
    rules = re.findall(r"\w+", instruction)[1:]
    if digest[0] % 3 == 0 and len(rules) > 1:
        rules = rules[1:]
    return "Rules: " + " ".join(dict.fromkeys([*rules, *failed[:1]]))


def reflect(request: Received) -> Answer:
    """The scripted model behind an endpoint."""
    return text(f"Here it is.\n```\n{improved(request.json['messages'][0]['content'])}\n```")


def trainer(folder: Path, stub: StubServer, *, count: int = 20, held_out: int = 2, **options: Any) -> Trainer:
    found = tasks(count)
    chosen: dict[str, Any] = {
        "agent": agent,
        "reward": score,
        "name": "gepa",
        "seed": 0,
        "budget": None,
        "validation_tasks": 6,
        "reflection": {"model": "scripted", "base_url": stub.base_url, "retries": 0},
        **options,
    }
    program: Callable[..., Any] = chosen.pop("agent")
    reward, seed, budget = chosen.pop("reward"), chosen.pop("seed"), chosen.pop("budget")
    return Trainer(
        program,
        found[held_out:],
        reward,
        chosen,
        held_out=found[:held_out],
        store=f"sqlite:///{folder}/runs.db",
        directory=folder,
        seed=seed,
        budget=budget,
    )
