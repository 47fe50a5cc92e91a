"""A first config for an agent of the user's own: what is written, and what it is written from."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from agentlightning.adapter import Adapter, AgentDescription
from agentlightning.errors import AdapterError, ConfigError
from agentlightning.installing import install_command
from agentlightning.loading import is_call, load
from agentlightning.plugins import Plugins
from agentlightning.records import Record

FRAMEWORKS = {
    "langgraph": "langgraph",
    "langchain": "langgraph",
    "langchain_core": "langgraph",
    "agents": "openai-agents",
    "crewai": "crewai",
    "autogen_agentchat": "autogen",
    "autogen_core": "autogen",
}
"""Which adapter runs the objects of a framework, by the first part of their type's module."""

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION_KEYS = ("question", "query", "input", "prompt", "task", "text")
QUESTIONS = (
    ("What is 2 + 3?", "5"),
    ("What is the capital of France?", "Paris"),
    ("How many days does a week have?", "7"),
    ("What is 9 - 4?", "5"),
    ("Which planet is called the red one?", "Mars"),
    ("What is 6 times 7?", "42"),
    ("What is the opposite of hot?", "cold"),
    ("How many legs does a spider have?", "8"),
)


class Agent(Record, kw_only=True):
    """An agent that was looked at: how it is named, who runs it, and what was found."""

    target: str
    adapter: str
    about: AgentDescription


def inspect(target: str, plugins: Plugins) -> Agent:
    """Loads the agent that ``module:attribute`` names and looks at it; nothing of it is called.

    Raises `ConfigError` where it does not load, and `AdapterError` that names the package to install where no
    installed adapter runs it.
    """
    from agentlightning.trainer import load_agent

    if is_call(target):
        for installed in plugins.adapters():
            installed.prepare()
        load(target.removesuffix("()"))
        made = AgentDescription(framework="", kind="made when training begins, by a call that `agl init` leaves alone")
        return Agent(target=target, adapter="the one for what it makes", about=made)
    try:
        agent, adapter = load_agent(target, plugins)
    except AdapterError:
        found = load(target)
        if callable(found):
            raise
        raise AdapterError(_missing(target, found, plugins.adapters())) from None
    return Agent(target=target, adapter=adapter.name, about=adapter.describe(agent))


def _missing(target: str, agent: Any, adapters: list[Adapter]) -> str:
    kind = agent if isinstance(agent, type) else type(agent)
    wanted = FRAMEWORKS.get(kind.__module__.partition(".")[0])
    what = f"{target} is a {kind.__module__}.{kind.__qualname__}"
    installed = f"installed adapters: {', '.join(adapter.name for adapter in adapters)}"
    function = "name a function (input) -> output of yours that runs it"
    if wanted is None:
        return f"{what}, which no installed adapter runs ({installed}): {function}"
    command = install_command(f"agentlightning-{wanted}")
    return f"{what}: install the adapter agentlightning-{wanted} ({installed}): {command}; or {function}"


def summary(agent: Agent) -> list[tuple[str, str]]:
    """What was found out about the agent, by name."""
    about = agent.about
    kind = about.kind if about.framework in about.kind else f"{about.framework} {about.kind}"
    facts = [("agent", f"{agent.target}: {kind}"), ("adapter", agent.adapter)]
    facts.append(("model", about.model or "not found by looking; it is seen when the agent calls it"))
    facts += [("prompt", _short(prompt)) for prompt in about.prompts] or [("prompt", "none found by looking")]
    facts.append(("tools", ", ".join(about.tools) or "none found by looking"))
    facts.append(("input", about.input))
    return [(name, value) for name, value in facts if value]


def write(agent: Agent, folder: Path, *, force: bool = False) -> list[Path]:
    """Writes ``agentlightning.yaml``, ``reward.py`` and ``tasks.jsonl`` into ``folder``, which lies in (or is) the
    current one, so that ``agl train`` finds them from here. Returns their paths.

    Raises `ConfigError`, and writes nothing, when one of them is there already and not ``force``, or when the
    folder's name cannot be a package's.
    """
    package = _package(folder)
    files = {
        folder / "agentlightning.yaml": _config(agent, folder, f"{package}reward:score"),
        folder / "reward.py": REWARD.format(target=agent.target),
        folder / "tasks.jsonl": _tasks(agent.about),
    }
    taken = [str(path) for path in files if path.exists()]
    if taken and not force:
        raise ConfigError(f"{', '.join(taken)}: there already; --force overwrites, --output writes elsewhere")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be written: {error}") from error
    return list(files)


def _package(folder: Path) -> str:
    """The prefix under which modules in a folder are imported from the current one: ``training.``, or nothing."""
    try:
        parts = folder.resolve().relative_to(Path.cwd().resolve()).parts
    except ValueError:
        parts = ("",)
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"--output {folder}: expected a folder in the current one, named like a Python package, so that the config "
            "can name its reward.py as module:function"
        )
    return "".join(f"{part}." for part in parts)


def _tasks(about: AgentDescription) -> str:
    keys = about.input_keys
    key = next((name for name in QUESTION_KEYS if name in keys), keys[0] if keys else None)
    lines = [
        json.dumps({"input": question if key is None else {key: question}, "expected": answer})
        for question, answer in QUESTIONS
    ]
    return "\n".join(lines) + "\n"


def _config(agent: Agent, folder: Path, reward: str) -> str:
    found = "".join(_comment(f"{name}: {value}") for name, value in summary(agent)[1:])
    tools = TOOLS if agent.about.tools else ""
    path = Path(folder, "agentlightning.yaml")
    tasks = json.dumps(str(Path(folder, "tasks.jsonl")))
    return CONFIG.format(
        target=agent.target, found=found, tasks=tasks, reward=reward, model=MODEL, tools=tools, path=path
    )


def _comment(text: str) -> str:
    return textwrap.indent(textwrap.fill(text, 110, subsequent_indent="  "), "#   ") + "\n"


def _short(text: str) -> str:
    return json.dumps(textwrap.shorten(text, 200, placeholder=" …"), ensure_ascii=False)


TOOLS = """\
    # The agent has tools. For a model whose own chat template knows none (SmolLM2's does not), give one that does:
    # chat_template: hermes-tools
"""

CONFIG = """\
# agl train {path}
# agl train {path} --set algorithm.steps=2       overrides a value
# agl train {path} --resume                      goes on with the last run

# Found by looking at it:
{found}agent: {target}

# One task a line. "input" is handed to the agent as it is; "expected" and every other key are for the reward.
# These are examples: put your own in their place. A fifth (at most 100) is held out, to measure before and after.
# To hold out a file of your own instead:
#   tasks: {{train: train.jsonl, held_out: held_out.jsonl}}
tasks: {tasks}

# How good a run was: a function (rollout, task) -> number, or None where it cannot tell.
# Or one of those that `agl plugins` lists, or several with weights:
#   reward: [{{name: exact_match, weight: 0.8}}, {{name: "{reward}", weight: 0.2}}]
reward: {reward}

algorithm:
  name: grpo             # `agl plugins` lists what is installed; each algorithm has options of its own
  model:
    path: {model}  # what is trained: a folder, a hub name or a GGUF file
{tools}  steps: 20              # a step: run the agent, score it, train once
  batch_tasks: 4         # tasks of a step
  group_size: 8          # runs of each task, which are compared with each other
  lr: 2e-5

# Which agents are trained, by name ("*" is all): where several act, the calls of the others are left alone.
train: ["*"]

runner:
  concurrency: 64        # runs of the agent at once
  timeout: 300           # seconds that one may take
  retries: 2             # how often one that the infrastructure broke is tried again

seed: 0
"""

REWARD = '''\
"""How good a run of {target} was. Named in agentlightning.yaml; change it to what you want."""


def score(rollout, task):
    """1.0 where the expected answer is in what the agent said at the end, else 0.0. Higher is better.

    `rollout.output` is what the agent returned (None where it failed: `rollout.failure` says why), `task` the line
    of tasks.jsonl: `task.input`, `task.expected`, and every other key in `task.metadata`.
    """
    if task.expected is None:
        return None  # cannot be told: the run is left out, which is not the same as 0
    return float(str(task.expected).lower() in answer_of(rollout.output).lower())


def answer_of(output):
    """The text of the agent's answer: of a chat, the last message."""
    if isinstance(output, dict) and output.get("messages"):
        output = output["messages"][-1].get("content")
    return "" if output is None else str(output)
'''
