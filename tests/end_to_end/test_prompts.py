"""Prompts: found in what was recorded, and swapped by agent, with no change to the agent."""

from __future__ import annotations

import msgspec
import openai
import pytest
from click.testing import CliRunner
from stub_server import StubServer

from agentlightning import Algorithm, Trainer, span
from agentlightning.cli import main
from agentlightning.cli.live_progress import make_progress


class Once(Algorithm):
    async def run(self, run) -> None:
        async for _ in run.collect(run.tasks, step=1):
            pass


@pytest.fixture
def stub():
    with StubServer() as stub:
        yield stub


def train(folder, stub: StubServer, **options) -> str:
    client = openai.OpenAI(base_url=stub.base_url, api_key="sk-own")

    def ask(name: str, system: str, question: str) -> None:
        with span(name, agent=name):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            client.chat.completions.create(model="gpt", messages=messages)

    def agent(question: str) -> str:
        ask("writer", "Write well.", question)
        ask("critic", "Be kind.", question)
        ask("critic", f"Be hard on {question}.", question)
        return "done"

    return (
        Trainer(
            agent,
            [{"id": str(number), "input": f"task {number}"} for number in range(5)],
            lambda rollout, task: 1.0,
            Once(msgspec.Struct()),
            held_out=[{"id": "held out", "input": "x"}],
            store=f"sqlite:///{folder}/runs.db",
            directory=folder,
            progress=make_progress(quiet=True),
            **options,
        )
        .fit()
        .run_id
    )


def listed(folder, run: str, *options: str) -> str:
    result = CliRunner().invoke(main, ["prompts", run, "--store", f"sqlite:///{folder}/runs.db", *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_prompts_are_listed_by_agent_the_most_used_first(tmp_path, stub) -> None:
    run = train(tmp_path, stub)
    assert listed(tmp_path, run).splitlines() == [
        "critic",
        "  system message of 5 calls",
        "    Be kind.",
        "  system message of 1 call",
        "    Be hard on task 0.",
        "  system message of 1 call",
        "    Be hard on task 1.",
        "  and 3 more (--all shows them)",
        "writer",
        "  system message of 5 calls",
        "    Write well.",
    ]
    assert "Be hard on task 4." in listed(tmp_path, run, "--all")


def test_a_prompt_of_the_config_takes_the_place_of_one_agents_own(tmp_path, stub) -> None:
    run = train(tmp_path, stub, prompts={"writ*": "Write like {nobody} else."})
    systems = [request.json["messages"][0]["content"] for request in stub.requests]
    assert systems.count("Write like {nobody} else.") == 5
    assert systems.count("Write well.") == 0
    assert systems.count("Be kind.") == 5
    assert "Write like {nobody} else." in listed(tmp_path, run)


def test_a_run_without_prompts_says_so(tmp_path, stub) -> None:
    run = (
        Trainer(
            lambda text: text,
            [{"id": "a", "input": "a"}, {"id": "b", "input": "b"}],
            lambda rollout, task: 1.0,
            Once(msgspec.Struct()),
            store=f"sqlite:///{tmp_path}/runs.db",
            directory=tmp_path,
            progress=make_progress(quiet=True),
        )
        .fit()
        .run_id
    )
    assert "no agent of this run gave its model a system prompt" in listed(tmp_path, run)
