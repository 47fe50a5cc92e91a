"""Agents with one fault each, as `agl check` meets them: what it has to name, and how it ends."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGENT = """
import sys
import threading
import time
import urllib.request

from openai import AsyncOpenAI, OpenAI

from agentlightning import span

client, async_client = OpenAI(max_retries=0), AsyncOpenAI(max_retries=0)
TOOL = {"type": "function", "function": {"name": "calculator", "parameters": {"type": "object", "properties": {}}}}


def ask(content, **more):
    messages = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=8, **more)  # asks
    return answer.choices[0].message.content or ""


def sound(question):
    return ask(question)


def raises(question):
    return {}["answer"]  # raises


async def raises_in_a_group(question):
    import asyncio

    async def part():
        raise ValueError("no number")  # raises in a group

    async with asyncio.TaskGroup() as group:
        group.create_task(part())


def exits(question):
    sys.exit(3)  # exits


def hangs(question):
    time.sleep(600)  # hangs


async def hangs_asynchronously(question):
    import asyncio

    await asyncio.sleep(600)  # hangs asynchronously


def takes_two(question, more):
    return ask(question)


def calls_nobody(question):
    return "42"


def calls_another_way(question):
    try:
        urllib.request.urlopen("http://127.0.0.1:9/v1/chat/completions", b"{}", timeout=5)
    except OSError:
        return "no answer"


def keeps_failures_to_itself(question):
    try:
        return ask(question * 2000)
    except Exception:
        return "42"


def shows_an_image(question):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    return ask([{"type": "text", "text": question}, image])


def triage(question):
    with span("triage", agent="triage"):
        return ask(question)


def offers_a_tool(question):
    return ask(question, tools=[TOOL])


def fails_after_the_answer(question):
    return int(ask(question) + "x")  # fails after the answer


def calls_beside_the_rollout(question):
    waiting.put(question)
    return answers.get(timeout=60)


def serve():
    while True:
        try:
            answers.put(ask(waiting.get()))
        except Exception as error:
            answers.put(str(error))


import queue

waiting, answers = queue.Queue(), queue.Queue()
threading.Thread(target=serve, daemon=True).start()


def one(rollout, task):
    return 1.0


def raising(rollout, task):
    return task.metadata["points"]  # the reward raises


def unsure(rollout, task):
    return None


def endless(rollout, task):
    while True:
        time.sleep(0.01)
"""

SHOWS_NOTHING = "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
SHOWS_NO_TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Fault:
    """``agent`` and ``reward`` are functions of `AGENT`, ``settings`` is laid over the config; ``named`` is in what is
    said, where ``LINE`` stands for the line of `AGENT` with the comment ``line``."""

    named: str
    agent: str = "sound"
    reward: str = "one"
    settings: dict[str, Any] = field(default_factory=dict)
    line: str = ""
    exit_code: int = 1

    @property
    def said(self) -> str:
        lines = [number for number, text in enumerate(AGENT.splitlines(), 1) if text.endswith(f"# {self.line}")]
        return self.named.replace("LINE", f"faulty.py:{lines[0]}") if self.line else self.named


FAULTS = {
    "the agent raises": Fault("the agent failed: KeyError: 'answer' (LINE)", "raises", line="raises"),
    "the agent raises in a task group": Fault(
        "ValueError: no number (LINE)", "raises_in_a_group", line="raises in a group"
    ),
    "the agent ends the process": Fault("SystemExit: 3 (LINE)", "exits", line="exits"),
    "the agent hangs": Fault("longer than runner.timeout = 2 s", "hangs", settings={"runner.timeout": 2}, line="hangs"),
    "the agent hangs, asynchronously": Fault(
        "timeout: the agent took longer than runner.timeout = 2 s (LINE)",
        "hangs_asynchronously",
        settings={"runner.timeout": 2},
        line="hangs asynchronously",
    ),
    "an agent of two inputs": Fault("takes (question, more)", "takes_two", exit_code=2),
    "no model call": Fault("no call reached the policy: the agent made no model call", "calls_nobody"),
    "a call by another client": Fault("through another library's client?", "calls_another_way"),
    "a call beside the rollout": Fault(
        "outside of the rollout: gpt-4o-mini at 127.0.0.1, made in LINE", "calls_beside_the_rollout", line="asks"
    ),
    "train matches nobody": Fault(
        "no agent matches triaje; seen: triage; did you mean 'triage'?", "triage", settings={"train": ["triaje"]}
    ),
    "the prompt is too long": Fault(
        "and the context holds 10 (LINE); shorten the prompt",
        settings={"algorithm.engine": {"max_context": 10}},
        line="asks",
    ),
    "the prompt is too long for the model": Fault("and the context holds 2048", "keeps_failures_to_itself"),
    "an image for a text model": Fault("a part of type 'image_url' is not supported", "shows_an_image"),
    "the reward raises": Fault("reward 'raising' raised KeyError: 'points'", reward="raising"),
    "the reward cannot score": Fault("the reward 'unsure' cannot score", reward="unsure"),
    "the reward never ends": Fault("reward 'endless'", reward="endless", settings={"runner.reward_timeout": 1}),
    "a template without messages": Fault(
        "shows the model no messages", settings={"algorithm.model.chat_template": "nothing.jinja"}, exit_code=2
    ),
    "a template without tools": Fault(
        "the chat template shows the model no tools",
        "offers_a_tool",
        settings={"algorithm.model.chat_template": "no_tools.jinja"},
        exit_code=0,
    ),
    "the agent fails on the answer": Fault(
        "the agent failed after the policy had answered: ValueError", "fails_after_the_answer"
    ),
}


def lay_out(folder: Path, model: Path) -> None:
    """Writes what every fault needs: the agents, the tasks, the templates, the config."""
    (folder / "faulty.py").write_text(AGENT, encoding="utf-8")
    (folder / "nothing.jinja").write_text(SHOWS_NOTHING, encoding="utf-8")
    (folder / "no_tools.jinja").write_text(SHOWS_NO_TOOLS, encoding="utf-8")
    tasks = "".join(json.dumps({"id": f"t{number}", "input": f"What is {number} + 1?"}) + "\n" for number in range(4))
    (folder / "tasks.jsonl").write_text(tasks, encoding="utf-8")
    config = {
        "agent": "faulty:sound",
        "tasks": "tasks.jsonl",
        "reward": "faulty:one",
        "algorithm": {"name": "grpo", "model": {"path": str(model), "device": "cpu"}, "steps": 1},
        "runner": {"retries": 0},
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")


def overrides(fault: Fault) -> list[str]:
    """The values of the config that make the fault, as ``--set`` takes them."""
    settings = {"agent": f"faulty:{fault.agent}", "reward": f"faulty:{fault.reward}", **fault.settings}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
