"""Bad inputs, each with the exit code and the words that a person should get for it.

A case changes a project that trains as it is (`project.py`): its config, its files, or the command.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAILED, USAGE = 1, 2

Config = dict[str, Any]
Change = Callable[[Path, Config], None]


@dataclass(frozen=True)
class Case:
    """One bad input. ``says`` is a regular expression that the output must hold, ``code`` the exit code. A ``signal``
    is sent when the output holds ``when``."""

    kind: str
    name: str
    change: Change
    says: str
    code: int = USAGE
    arguments: tuple[str, ...] = ("train", "config.yaml")
    signal: int | None = None
    when: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    file_limit: int | None = None
    """The most bytes that a file may have: a disk that is full."""


def put(path: str, value: Any) -> Change:
    """Sets a value of the config, as ``algorithm.lr``."""

    def change(folder: Path, config: Config) -> None:
        *parents, last = path.split(".")
        for key in parents:
            config = config[key]
        config[last] = value

    return change


def text(name: str, content: str) -> Change:
    """Writes a file."""
    return lambda folder, config: (folder / name).write_text(content, encoding="utf-8") and None


def tasks(content: str | bytes, name: str = "tasks.jsonl") -> Change:
    """Other tasks."""

    def change(folder: Path, config: Config) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        config["tasks"] = name

    return change


def agent(code: str, name: str = "agent") -> Change:
    """An agent of its own module; ``MODEL(messages)`` asks the model."""
    source = "import openai\nclient = openai.OpenAI()\ndef MODEL(messages):\n    return client.chat.completions.create("
    source += "model='m', messages=messages, max_tokens=8).choices[0].message.content\n" + code

    def change(folder: Path, config: Config) -> None:
        (folder / "faulty.py").write_text(source, encoding="utf-8")
        config["agent"] = f"faulty:{name}"

    return change


def reward(code: str, **options: Any) -> Change:
    """A reward of its own module."""

    def change(folder: Path, config: Config) -> None:
        (folder / "faulty_reward.py").write_text(code, encoding="utf-8")
        config["reward"] = {"name": "faulty_reward:score", **options}
        config["runner"]["reward_timeout"] = 2

    return change


def own_model(edit: Callable[[Path], object]) -> Change:
    """A copy of the model, damaged."""

    def change(folder: Path, config: Config) -> None:
        copy = folder / "model"
        shutil.copytree(config["algorithm"]["model"]["path"], copy)
        edit(copy)
        config["algorithm"]["model"]["path"] = str(copy)

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path, config: Config) -> None:
        for one in changes:
            one(folder, config)

    return change


def nothing(folder: Path, config: Config) -> None:
    """Changes nothing."""


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_config(folder: Path, config: Config) -> None:
    config.clear()


IMAGE = "[{'type': 'image_url', 'image_url': {'url': 'https://example.org/a.png'}}]"
RAISES = "def score(rollout, task):\n    "
CONFIG = [
    Case("config", "no such file", nothing, "no config file at missing.yaml", arguments=("train", "missing.yaml")),
    Case("eval", "no such file", nothing, "no config file at missing.yaml", arguments=("eval", "missing.yaml")),
    Case("eval", "no such tasks", nothing, "none.jsonl", arguments=("eval", "config.yaml", "--tasks", "none.jsonl")),
    Case("eval", "no such model", nothing, "nowhere", FAILED, ("eval", "config.yaml", "--model", "./nowhere")),
    Case("serve", "no such folder", nothing, "there is no folder runs/none", arguments=("serve", "runs/none")),
    Case("serve", "no such run", nothing, "there is no store", arguments=("serve", "none")),
    Case("config", "no argument", nothing, "Missing argument 'CONFIG'", arguments=("train",)),
    Case("config", "not YAML", text("bad.yaml", "agent: [a\n"), "not valid YAML", arguments=("train", "bad.yaml")),
    Case("config", "empty", text("bad.yaml", ""), "expected a mapping", arguments=("train", "bad.yaml")),
    Case("config", "an unknown key", put("rewards", "x"), "rewards: unknown key; did you mean reward"),
    Case("config", "an unknown option of the algorithm", put("algorithm.learning_rate", 1), "algorithm.learning_rate"),
    Case("config", "an unknown algorithm", put("algorithm.name", "gpro"), "gpro"),
    Case("config", "no algorithm's name", put("algorithm", {}), "algorithm.name: missing"),
    Case("config", "an unknown preset", put("algorithm.preset", "trl/dapo"), "algorithm.preset"),
    Case("config", "an unknown field of the loss", put("algorithm.loss", {"clip": 1}), "algorithm.loss.clip"),
    Case("config", "text for a number", put("algorithm.lr", "fast"), "algorithm.lr: expected"),
    Case("config", "lr -1", put("algorithm.lr", -1), "algorithm.lr"),
    Case("config", "lr not a number", put("algorithm.lr", float("nan")), "algorithm.lr"),
    Case("config", "lr infinite", put("algorithm.lr", float("inf")), "algorithm.lr"),
    Case("config", "no step", put("algorithm.steps", 0), "algorithm.steps"),
    Case("config", "a group of one", put("algorithm.group_size", 1), "algorithm.group_size"),
    Case("config", "temperature 0", put("algorithm.temperature", 0), "algorithm.temperature"),
    Case("config", "replay 2", put("algorithm.replay", 2.0), "algorithm.replay"),
    Case("config", "a list for the algorithm", put("algorithm", ["grpo"]), "algorithm"),
    Case("config", "concurrency 0", put("runner.concurrency", 0), "runner.concurrency"),
    Case("config", "time-out 0", put("runner.timeout", 0), "runner.timeout"),
    Case("config", "retries -1", put("runner.retries", -1), "runner.retries"),
    Case("config", "--set without a value", nothing, "--set", arguments=("train", "config.yaml", "--set", "seed")),
    Case("config", "train names no agent", put("train", ["sovler"]), "no agent matches sovler"),
]
TASKS = [
    Case("tasks", "no such file", put("tasks", "missing.jsonl"), "missing.jsonl"),
    Case("tasks", "an empty file", tasks(""), "tasks.jsonl"),
    Case("tasks", "a line that is no JSON", tasks('{"input": "a"}\n{"input": \n'), "tasks.jsonl:2"),
    Case("tasks", "a line without input", tasks('{"input": "a"}\n{"question": "b"}\n'), "input"),
    Case("tasks", "one id twice", tasks('{"id": "a", "input": "x"}\n{"id": "a", "input": "y"}\n'), "a"),
    Case("tasks", "one task alone", tasks('{"input": "a"}\n'), "too few"),
    Case("tasks", "a folder", put("tasks", "."), "expected a file"),
    Case("tasks", "bytes that are no text", tasks(b'{"input": "\xff\xfe"}\n'), "utf-8"),
    Case("tasks", "no Parquet file", tasks(b"PAR1 and nothing else", "tasks.parquet"), "tasks.parquet"),
    Case("tasks", "a column that is not there", put("tasks", {"train": "tasks.jsonl", "fields": {"input": "q"}}), "q"),
]
AGENT = [
    Case("agent", "no such module", put("agent", "nowhere:solve"), "nowhere"),
    Case("agent", "no such attribute", put("agent", "small:slove"), "did you mean 'solve'"),
    Case("agent", "no colon", put("agent", "small"), "small"),
    Case("agent", "a syntax error", agent("def agent(:\n"), "faulty.py"),
    Case("agent", "an import that is missing", agent("import nosuchpackage\nagent = MODEL"), "nosuchpackage"),
    Case("agent", "sys.exit at import", agent("import sys\nsys.exit(3)"), "faulty"),
    Case("agent", "a number", agent("agent = 4"), "int"),
    Case("agent", "takes no input", agent("def agent():\n    return 1"), "agent"),
    Case("agent", "takes two", agent("def agent(a, b):\n    return 1"), "agent"),
    Case("agent", "raises", agent("def agent(q):\n    raise KeyError('city')"), r"KeyError.*city"),
    Case("agent", "sys.exit", agent("import sys\ndef agent(q):\n    sys.exit(3)"), "SystemExit"),
    Case("agent", "os._exit", agent("import os\ndef agent(q):\n    os._exit(3)"), "", 3),
    Case("agent", "never returns", agent("import time\ndef agent(q):\n    time.sleep(99)"), "timeout"),
    Case("agent", "calls no model", agent("def agent(q):\n    return q"), "no (model )?call"),
    Case("agent", "image content", agent(f"def agent(q):\n    return MODEL([dict(role='user', content={IMAGE})])"),
         "image"),
    Case("agent", "a prompt that is too long", agent("def agent(q):\n    return MODEL([dict(role='user', content='a '"
         " * 9000)])"), "context"),
    Case("agent", "no message", agent("def agent(q):\n    return MODEL([])"), "messages"),
]  # fmt: skip
REWARD = [
    Case("reward", "an unknown name", put("reward", "exact_mach"), "exact_match"),
    Case("reward", "no such function", put("reward", "small:scoer"), "did you mean 'score'"),
    Case("reward", "takes one argument", reward("def score(rollout):\n    return 1"), "score"),
    Case("reward", "an option that it has not", put("reward", {"name": "exact_match", "config": {"x": 1}}), "x"),
    Case("reward", "no regular expression", put("reward", {"name": "regex", "config": {"pattern": "("}}), "pattern"),
    Case("reward", "raises", reward(RAISES + "raise ValueError('no unit')"), "no unit"),
    Case("reward", "StopIteration", reward(RAISES + "return next(iter(()))"), "StopIteration"),
    Case("reward", "sys.exit", reward("import sys\n" + RAISES + "sys.exit(3)"), "SystemExit"),
    Case("reward", "never returns", reward("import time\n" + RAISES + "time.sleep(99)"), "reward_timeout"),
    Case("reward", "gives text", reward(RAISES + "return 'good'"), "good"),
    Case("reward", "gives NaN", reward(RAISES + "return float('nan')"), "nan"),
    Case("reward", "gives 1e308", reward(RAISES + "return 1e308"), "1e\\+?308"),
    Case("reward", "cannot score", reward(RAISES + "return None"), "score"),
]
MODEL = [
    Case("model", "no such folder, nor on the hub", put("algorithm.model.path", "nobody/none"), "nobody/none", FAILED),
    Case("model", "an empty folder", put("algorithm.model.path", "."), "is no model", FAILED),
    Case("model", "weights cut off", own_model(lambda model: truncate(model / "model.safetensors")), "weights", FAILED),
    Case("model", "no tokenizer", own_model(lambda model: [path.unlink() for path in model.glob("token*")]),
         "tokenizer", FAILED),
    Case("model", "a config that is no JSON", own_model(lambda model: truncate(model / "config.json")),
         "config.json", FAILED),
    Case("model", "an unknown dtype", put("algorithm.model.dtype", "float8"), "algorithm.model.dtype"),
    Case("model", "an unknown template", put("algorithm.model.chat_template", "hermes-tool"), "hermes-tools", FAILED),
    Case("model", "a template that ignores messages", put("algorithm.model.chat_template", "{{ 'hello' }}"),
         "messages", FAILED),
    Case("model", "LoRA of rank 0", put("algorithm.model.lora", {"rank": 0}), "rank"),
    Case("model", "a device that is not there", put("algorithm.model.device", "cuda:7"), "cuda", FAILED),
    Case("model", "room for 10 tokens", put("algorithm.engine", {"max_context": 10}), "context"),
]  # fmt: skip
DISK = [
    Case("disk", "a store of another kind", put("store", "mysql://x"), "mysql"),
    Case("disk", "a store that is no database", both(text("x.db", "no database" * 99), put("store", "sqlite:///x.db")),
         "x.db", USAGE),
    Case("disk", "a store in a file", both(text("x", ""), put("store", "sqlite:///x/s.db")), "x", USAGE),
    Case("disk", "a folder of runs that is a file", both(text("x", ""), put("directory", "x")), "x"),
    Case("disk", "no room", nothing, "large|full|room", file_limit=40_000),
]  # fmt: skip
SIGNALS = [
    Case("signal", "Ctrl-C in a step", put("algorithm.steps", 500), "--resume", 130, signal=signal.SIGINT,
         when="step 2"),
    Case("signal", "Ctrl-C at the start", nothing, "", 130, signal=signal.SIGINT, when="run "),
    Case("signal", "SIGTERM in a step", put("algorithm.steps", 500), "--resume", 143, signal=signal.SIGTERM,
         when="step 2"),
    Case("signal", "SIGHUP in a step", put("algorithm.steps", 500), "--resume", 129, signal=signal.SIGHUP,
         when="step 2"),
    Case("signal", "nothing to resume", nothing, "no unfinished run", arguments=("train", "config.yaml", "--resume")),
    Case("signal", "no such run to resume", nothing, "no run r",
         arguments=("train", "config.yaml", "--resume", "r")),
    Case("signal", "no such run to show", nothing, "r", arguments=("show", "r", "--store", "sqlite:///store.db")),
]  # fmt: skip
CASES = [*CONFIG, *TASKS, *AGENT, *REWARD, *MODEL, *DISK, *SIGNALS]


def write(folder: Path, case: Case, config: Config) -> None:
    """The project as the case has it."""
    case.change(folder, config)
    (folder / "config.yaml").write_text(json.dumps(config).replace("NaN", ".nan").replace("Infinity", ".inf"))
