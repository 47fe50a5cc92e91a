"""What an adapter is: it knows which objects are agents of its framework, how to run one, and how to
hook into the framework so that what happens is recorded."""

from __future__ import annotations

import functools
import logging
import re
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from agentlightning.importing import forget, when_imported
from agentlightning.records import Record

logger = logging.getLogger(__name__)


class AgentDescription(Record, kw_only=True):
    """What ``agl init`` finds out about an agent without running it."""

    framework: str
    kind: str
    model: str | None = None
    prompts: list[str] = []
    tools: list[str] = []
    input: str = ""
    """How the agent takes its input, in a few words."""
    input_keys: list[str] = []
    """The keys of the mapping that it takes as its input; empty where a string will do."""


class Adapter(ABC):
    """Base of every adapter. Its module imports no framework; it names those that it hooks into, and is asked to
    when they are imported. An error inside a hook never reaches the agent."""

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    """The modules whose import `hook` waits for."""
    priority: ClassVar[int] = 0
    """Adapters are asked in descending order; the plain-function adapter comes last."""

    @abstractmethod
    def accepts(self, agent: Any) -> bool:
        """Whether ``agent`` is an object this adapter can run."""

    @abstractmethod
    async def run(self, agent: Any, input: Any) -> Any:
        """Runs the agent on one task's input; returns its output. The agent's exceptions pass through."""

    def prepare(self) -> None:
        """Called before the agent is imported (environment variables it needs to be constructed)."""

    def install(self) -> None:
        """Hooks into the framework: now where it is imported, else as soon as it is, wherever that happens. Called
        before the agent is imported, so that whoever else wraps what is hooked into comes later; safe to call twice."""
        for module in self.modules:
            when_imported(module, self.hook)

    def uninstall(self) -> None:
        """Takes the hooks out, and waits for no import any more."""
        for module in self.modules:
            forget(module, self.hook)
        self.unhook()

    def hook(self) -> None:
        """Puts the hooks in, one of `modules` being imported; safe to call twice."""

    def unhook(self) -> None:
        """Takes the hooks out, where there are any."""

    def describe(self, agent: Any) -> AgentDescription:
        """Looks at an agent, for ``agl init``."""
        return AgentDescription(framework=self.name, kind=type(agent).__name__)


@functools.cache
def supports(distribution: str, oldest: str, below: str) -> bool:
    """Whether an installed distribution's version is in [oldest, below). Warns, once, where it is not: the
    adapter then leaves structure alone, and model calls are recorded by the model layer."""
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        return False
    if _numbers(oldest) <= _numbers(installed) < _numbers(below):
        return True
    logger.warning(
        "%s %s is outside of the supported versions, %s to below %s: its agents, tools and hand-offs are not recorded, "
        "only its model calls",
        *(distribution, installed, oldest, below),
    )
    return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3])
