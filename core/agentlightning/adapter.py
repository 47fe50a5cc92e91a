"""What an adapter is: it knows which objects are agents of its framework, how to run one, and how to
hook into the framework so that what happens is recorded."""

from __future__ import annotations

import functools
import logging
import sys
from abc import ABC, abstractmethod
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from packaging.specifiers import SpecifierSet

from agentlightning.importing import forget, when_imported

logger = logging.getLogger(__name__)


class Adapter(ABC):
    """Base of every adapter. Its module imports no framework; it names those that it hooks into, and is asked to
    when they are imported. An error inside a hook never reaches the agent."""

    name: ClassVar[str]
    modules: ClassVar[tuple[str, ...]] = ()
    """The modules whose import `hook` waits for."""
    hooks: ClassVar[str | None] = None
    """The module with the functions `install`, safe to call twice, and `uninstall`. It imports the framework, and is
    imported when one of `modules` has been."""
    entry_points: ClassVar[str | None] = None
    """``module:attribute`` of the framework's methods that run its agents
    (`agentlightning.adapterkit.entry_points.EntryPoint`): wrapped in processes whose runs are recorded
    (`agentlightning.attach`). The module imports no framework."""
    versions: ClassVar[tuple[str, str, str] | None] = None
    """What is hooked into: a distribution, its oldest version, and the first that is not supported any more."""
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

    def is_supported(self) -> bool:
        """Whether the framework is of a version that is hooked into."""
        return self.versions is None or supports(*self.versions)

    def hook(self) -> None:
        """Puts the hooks in, one of `modules` being imported; safe to call twice."""
        if self.hooks is not None and self.is_supported():
            import_module(self.hooks).install()

    def unhook(self) -> None:
        """Takes the hooks out, where there are any."""
        module = sys.modules.get(self.hooks) if self.hooks is not None else None
        if module is not None:
            module.uninstall()


@functools.cache
def supports(distribution: str, oldest: str, below: str) -> bool:
    """Whether an installed distribution's version is in [oldest, below), by PEP 440 (no pre-release of either is).

    Warns, once, where it is not: the adapter then leaves structure alone, and model calls are recorded by the model
    layer.
    """
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        return False
    if SpecifierSet(f">={oldest},<{below}").contains(installed, prereleases=True):
        return True
    logger.warning(
        "%s %s is outside of the supported versions, %s to below %s: its agents, tools and hand-offs are not recorded, "
        "only its model calls",
        *(distribution, installed, oldest, below),
    )
    return False
