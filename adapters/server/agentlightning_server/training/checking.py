"""Whether what a submitted config names is there, and can be made: tried in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agentlightning.child_processes import (
    ChildProcess,
    ProcessGoneError,
    ending_after,
    own_streams,
    read,
    write,
)
from agentlightning.errors import AgentLightningError
from agentlightning.loading import explain
from agentlightning.plugins import plugins
from agentlightning.redaction import begin_redacting, redact
from agentlightning.trainer import Trainer
from agentlightning_server.training.folder import TrainingFolder

CHECK_SECONDS = 50.0
"""How long it is tried whether a training can be made. A request lasts no longer than a minute."""


class Question(msgspec.Struct):
    """Which training is tried, and in which folder its modules are looked for."""

    folder: str
    modules: str


class Finding(msgspec.Struct):
    """What came of it: what is wrong, or None; and what the server does not know by itself."""

    problem: str | None = None
    name: str = ""
    agent: str = ""
    needs_workers: bool = False


def find_problem(folder: TrainingFolder, modules: Path) -> Finding:
    """Whether the trainer of a training can be made, with all that its config names: imported from ``modules``, in a
    process of its own, which ends with that. One that takes too long is left to the training itself."""
    child = ChildProcess("agentlightning_server.training.checking")
    try:
        question = msgspec.json.encode(Question(str(folder.path), str(modules)))
        with child.asked(question, CHECK_SECONDS) as answer:
            return msgspec.json.decode(answer(), type=Finding)
    except ProcessGoneError as gone:
        if gone.too_long:
            return Finding()
        return Finding(problem=f"the process that loaded what the config names {gone}")
    finally:
        child.kill()


def main() -> None:
    """The process that tries."""
    requests, answers = own_streams()
    question = msgspec.json.decode(read(requests), type=Question)
    with ending_after(CHECK_SECONDS + 10):
        os.chdir(question.modules)
        begin_redacting()
        write(answers, msgspec.json.encode(_finding(TrainingFolder(Path(question.folder)))))


def _finding(folder: TrainingFolder) -> Finding:
    try:
        config = folder.config()
        Trainer.from_config(config)
        runner = plugins().find("runners", config.runner.name)
    except AgentLightningError as error:
        return Finding(problem=redact(str(error)))
    except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
        return Finding(problem=redact(explain(error)))
    name = config.name or str(config.algorithm["name"])
    return Finding(name=name, agent=config.agent, needs_workers=runner.needs_workers)
