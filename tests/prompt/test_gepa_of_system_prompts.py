"""GEPA on an agent that was not written for it: two system prompts in its code, which its OpenAI client sends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import rule_tasks
from click.testing import CliRunner
from prompt_runs import candidates_of, published_prompts
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning import Trainer
from agentlightning.cli.app import main

FIRST, SECOND = "Rules: apple", "Rules: brick"


@pytest.fixture
def model() -> Iterator[StubServer]:
    """Answers rightly where the system prompt names the kind of the question."""

    def answer(request: Received) -> Answer:
        system, question = (message["content"] for message in request.json["messages"][:2])
        return text("right" if rule_tasks.is_right(system, question) else "wrong")

    with StubServer() as server:
        server.reply(answer)
        yield server


def trainer(folder: Path, model: StubServer, reflection: StubServer) -> Trainer:
    client = openai.AsyncOpenAI(base_url=model.base_url, api_key="k")

    async def agent(question: str) -> str:
        """Asks with the one prompt, and then with the other one, where the first did not do."""
        for prompt in (FIRST, SECOND):
            messages = [{"role": "system", "content": prompt}, {"role": "user", "content": question}]
            answer = await client.chat.completions.create(model="m", messages=messages)  # type: ignore[arg-type]
            if answer.choices[0].message.content == "right":
                return "right"
        return "wrong"

    return rule_tasks.trainer(folder, reflection, agent=agent, steps=4)


async def test_both_prompts_of_an_agent_are_improved_and_what_became_of_them_is_shown(
    tmp_path: Path, stub: StubServer, model: StubServer
) -> None:
    stub.reply(rule_tasks.reflect)
    result = await asyncio.to_thread(trainer(tmp_path, model, stub).fit)
    accepted = candidates_of(tmp_path, result.run_id)
    assert accepted[0] == {"agent 1": FIRST, "agent 2": SECOND}
    assert {candidate["agent 1"] for candidate in accepted} > {FIRST}
    assert {candidate["agent 2"] for candidate in accepted} > {SECOND}
    published = await published_prompts(tmp_path, result.run_id)
    assert {prompt.replaces for prompt in published.values()} == {FIRST, SECOND}
    sent = {request.json["messages"][0]["content"] for request in model.requests}
    assert sent >= {text for candidate in accepted for text in candidate.values()}
    shown = await asyncio.to_thread(
        CliRunner().invoke, main, ["prompts", result.run_id, "--diff", "--store", f"sqlite:///{tmp_path}/runs.db"]
    )
    changed = [prompt for prompt in published.values() if prompt.version]
    assert changed
    for prompt in changed:
        assert f"-{prompt.replaces}\n" in shown.output
        assert f"+{prompt.template}\n" in shown.output


async def test_what_is_reflected_on_are_the_calls_with_the_prompt_that_is_to_change(
    tmp_path: Path, stub: StubServer, model: StubServer
) -> None:
    stub.reply(rule_tasks.reflect)
    await asyncio.to_thread(trainer(tmp_path, model, stub).fit)
    asked = stub.requests[0].json["messages"][0]["content"]
    assert f"```\n{FIRST}\n```" in asked
    assert "### conversation\nuser: " in asked
    assert "conversation 2" not in asked
