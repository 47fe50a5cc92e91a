"""A scripted judge: it reads what it is asked, as a model would, and answers by what each candidate is worth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from stub_answers import Answer, Received, text

from agentlightning.config import decode_section
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning_judge.config import JudgeConfig
from agentlightning_judge.reward import Judge

TASK = Task(id="t", input="What is two and two?", expected="4")
RUBRIC = "The answer is right."

Worth = Callable[[str], float]


def length(shown: str) -> float:
    return float(len(shown))


class Seen:
    """One request to the judge: its token, and what it shows, by letter."""

    def __init__(self, request: Received) -> None:
        self.text: str = request.json["messages"][1]["content"]
        self.token: str = re.findall(r"^<task-(\w+)>", self.text)[0]
        blocks = rf'<candidate-{self.token} name="(\w)">\n(.*?)\n</candidate-{self.token}>'
        self.candidates: dict[str, str] = dict(re.findall(blocks, self.text, re.DOTALL))

    def verdict(self, **judgement: Any) -> str:
        reasons = {letter: f"About {shown[:40]!r}." for letter, shown in self.candidates.items()}
        return json.dumps({"token": self.token, "reasons": reasons, **judgement})


def by_worth(
    worth: Worth = length, *, around: Callable[[Seen, str], str] | None = None
) -> Callable[[Received], Answer]:
    """What a judge answers who knows what each candidate is worth; a score is the worth itself. ``around`` writes the
    reply around the verdict."""

    def reply(request: Received) -> Answer:
        seen = Seen(request)
        said = seen.verdict(**_judgement(seen, worth))
        return text(said if around is None else around(seen, said))

    return reply


def by_place(better: str) -> Callable[[Received], Answer]:
    """A judge who goes by the order: the better of two is always the one of that letter, a ranking the order shown."""

    def reply(request: Received) -> Answer:
        seen = Seen(request)
        return text(seen.verdict(better=better, ranking=[[letter] for letter in seen.candidates]))

    return reply


def _judgement(seen: Seen, worth: Worth) -> dict[str, Any]:
    of = {letter: worth(shown) for letter, shown in seen.candidates.items()}
    levels = sorted(set(of.values()), reverse=True)
    judged: dict[str, Any] = {"ranking": [[one for one in of if of[one] == level] for level in levels]}
    if len(of) == 2:
        judged["better"] = "tie" if of["A"] == of["B"] else max(of, key=lambda letter: of[letter])
    if len(of) == 1:
        judged["score"] = of["A"]
    return judged


def rollouts(*outputs: Any, purpose: Any = "train", **fields: Any) -> list[Rollout]:
    return [
        Rollout(
            id=f"r{number}",
            run_id="run",
            group_id="g",
            task_id="t",
            purpose=purpose,
            sample=number,
            status="succeeded",
            output=output,
            **fields,
        )
        for number, output in enumerate(outputs)
    ]


def make(base_url: str, *, model: dict[str, Any] | None = None, **options: Any) -> Judge:
    """A judge without a cache, unless it is told to have one."""
    served = {"model": "judge", "base_url": base_url, "retries": 0, **(model or {})}
    config = {"model": served, "rubric": RUBRIC, "cache": None, **options}
    return Judge(decode_section(config, JudgeConfig, at="judge"))


async def judge(
    judge: Any, given: Sequence[Rollout], task: Task = TASK, spans: Sequence[Sequence[Span]] | None = None
) -> list[Reward]:
    """What a group judge gives."""
    rewards: list[Reward] = await judge(list(given), task, spans or [[] for _ in given])
    return rewards


def values(rewards: Sequence[Reward]) -> list[float | None]:
    return [None if reward.value is None else round(reward.value, 6) for reward in rewards]


def total(rewards: Sequence[Reward], name: str) -> float:
    return sum(reward.metrics.get(name, 0) for reward in rewards)
