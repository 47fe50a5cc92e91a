"""The day after training: an agent that nobody changes is answered by the trained model, through two variables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_project import make_project

AGL = (sys.executable, "-c", "from agentlightning.cli import main; main()")
PROMPT = "Answer in a word."
QUESTION = "What is 2 + 3?"

PLAIN = f"""
import openai
answer = openai.OpenAI().chat.completions.create(
    model="gpt-4o-mini",
    max_tokens=8,
    temperature=0,
    messages=[
        {{"role": "system", "content": "The agent's own prompt."}},
        {{"role": "user", "content": "{QUESTION}"}},
    ],
)
text = answer.choices[0].message.content
"""

LANGGRAPH = f"""
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(model="gpt-4o-mini", max_tokens=8, temperature=0)


def ask(state):
    return {{"messages": [model.invoke([("system", "The agent's own prompt."), *state["messages"]])]}}


graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END).compile()
text = graph.invoke({{"messages": [("user", "{QUESTION}")]}})["messages"][-1].content
"""

OPENAI_AGENTS = f"""
from agents import Agent, ModelSettings, Runner, set_default_openai_api

set_default_openai_api("chat_completions")  # a responses call that ends at its max_tokens is an error of this SDK
agent = Agent(
    name="Answerer",
    instructions="The agent's own prompt.",
    model="gpt-4.1",
    model_settings=ModelSettings(max_tokens=8, temperature=0),
)
text = Runner.run_sync(agent, "{QUESTION}").final_output
"""


def agl(folder: Path, *arguments: str) -> str:
    """What a command prints, run in a folder of the user's."""
    done = subprocess.run([*AGL, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder in which a run has trained for one step, with a prompt in place of its agents' own."""
    folder = make_project(tmp_path_factory.mktemp("trained"), tiny_model)
    config = json.loads((folder / "config.yaml").read_text())
    del config["store"]
    config["prompts"] = {"*": PROMPT}
    config["algorithm"] |= {"steps": 1, "evaluate": {"greedy": False}}
    (folder / "config.yaml").write_text(json.dumps(config))
    agl(folder, "train", "config.yaml", "--quiet")
    return folder


@pytest.fixture(scope="module")
def run(trained: Path) -> str:
    """The id of the run."""
    return agl(trained, "runs").splitlines()[1].split()[0]


Served = Callable[[], tuple[str, dict[str, str]]]
"""Waits until something is served: its folder, and the variables that `agl serve` says to set."""


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Served]:
    """``agl serve`` with these arguments, inside the block; then it is ended by Ctrl-C."""
    listening = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background job is not
    )
    command = [sys.executable, "-c", f"{listening}; {AGL[-1]}", "serve", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:

        def served() -> tuple[str, dict[str, str]]:
            said = ""
            for line in server.stdout:  # type: ignore[union-attr]
                said += line
                if line.startswith("Ctrl-C"):
                    break
            (model,) = re.findall(r"^(.*) answers at ", said, re.MULTILINE)
            return model, dict(re.findall(r"^export (\w+)=(.*)$", said, re.MULTILINE))

        try:
            yield served
        finally:
            server.send_signal(signal.SIGINT)
            try:
                assert server.wait(timeout=60) == 130
            finally:
                server.kill()


@pytest.fixture(scope="module")
def variables(trained: Path, run: str) -> Iterator[dict[str, str]]:
    """The variables that ``agl serve RUN`` says to set, while it serves."""
    with serving(trained, run) as served:
        yield served()[1]


def answer_of(folder: Path, system: str | None) -> str:
    """What weights answer at temperature 0."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": QUESTION})
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        ids = AutoModelForCausalLM.from_pretrained(folder).generate(**prompt, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.fixture(scope="module")
def expected(trained: Path, run: str) -> str:
    """What the trained weights answer at temperature 0, with the run's prompt in the agent's own one's place."""
    return answer_of(trained / "runs" / run / "model", PROMPT)


@pytest.mark.parametrize(
    ("framework", "agent"),
    [("openai", PLAIN), ("langgraph", LANGGRAPH), ("agents", OPENAI_AGENTS)],
    ids=["openai", "langgraph", "openai-agents"],
)
def test_an_untouched_agent_is_answered_by_the_trained_model(
    trained: Path, variables: dict[str, str], expected: str, framework: str, agent: str
) -> None:
    pytest.importorskip(framework)
    assert set(variables) == {"OPENAI_BASE_URL", "OPENAI_API_KEY"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environment = {**own, **variables, "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    program = f"{agent}\nimport json, sys\nassert 'agentlightning' not in sys.modules\nprint(json.dumps(text))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=trained, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_the_trained_model_is_evaluated_as_a_run_of_its_own_and_compared(trained: Path, run: str) -> None:
    table = agl(trained, "eval", "config.yaml", "--model", f"runs/{run}/model")
    assert [line.split()[:3] for line in table.splitlines() if line.startswith("sampled")] == [["sampled", "0", "6"]]
    (other,) = [line.split()[0] for line in agl(trained, "runs").splitlines() if line.startswith("small-eval")]
    assert "algorithm  eval, seed 0" in agl(trained, "show", other)
    compared = agl(trained, "compare-runs", run, other)
    (line,) = [line for line in compared.splitlines() if line.startswith("sampled")]
    assert line.split()[1] == "6"


def asked_at(base_url: str, **sampling: float) -> str | None:
    """What is answered there."""
    import openai

    messages: Any = [{"role": "user", "content": QUESTION}]
    with openai.OpenAI(base_url=base_url, api_key="none") as client:
        answer = client.chat.completions.create(model="any", messages=messages, max_tokens=8, **sampling)
    return answer.choices[0].message.content


def test_where_a_request_names_no_temperature_it_is_that_of_the_run(tiny_model: Path) -> None:
    from agentlightning.serving import Servable, ServedModel

    greedy = Servable(model={"path": str(tiny_model)}, sampling={"temperature": 0})
    with ServedModel(greedy) as served:
        assert asked_at(served.base_url) == answer_of(tiny_model, None)
        assert len({asked_at(served.base_url, temperature=2.0) for _ in range(4)}) > 1


def test_what_is_promoted_is_served_for_its_target_until_it_is_rolled_back(
    trained: Path, run: str, tiny_model: Path, expected: str
) -> None:
    refused = subprocess.run([*AGL, "promote", run], cwd=trained, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 3, refused.stderr
    assert "only 6 held-out tasks were scored" in refused.stdout
    agl(trained, "promote", run, "--force", "so few tasks can tell nothing")
    with serving(trained, "--target", "live") as served:
        model, variables = served()
        assert Path(model) == trained / "runs" / run / "model"
        assert asked_at(variables["OPENAI_BASE_URL"], temperature=0) == expected
        assert "the agent has its own prompts and models again" in agl(trained, "rollback", "live")
        model, after = served()
        assert (Path(model), after) == (tiny_model, variables)
        assert asked_at(variables["OPENAI_BASE_URL"], temperature=0) == answer_of(tiny_model, None)
    assert "rolled back" in agl(trained, "promoted")


def test_the_result_serves_itself(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook: no command, and no process beside this one."""
    import openai

    from agentlightning import Trainer
    from agentlightning.config import load_config

    monkeypatch.chdir(trained)
    monkeypatch.syspath_prepend(str(trained))
    result = Trainer.from_config(load_config("config.yaml")).fit()
    with result.serve(name="mine") as served, openai.OpenAI(base_url=served.base_url, api_key="none") as client:
        asked = {"max_tokens": 4, "messages": [{"role": "user", "content": QUESTION}]}
        assert client.chat.completions.create(model="mine", **asked).usage.completion_tokens <= 4
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="another", **asked)
    assert "<table>" in result._repr_html_()
    sys.modules.pop("two_turns", None)
