"""What the conformance suite needs of a framework: the same few agents, written as its users write them.

Every agent talks to an OpenAI-compatible endpoint at ``base_url`` with the key ``sk-own`` and the model ``own-model``,
retries at least once, and takes a question as its input. No code here knows of agentlightning. Where a framework has no
object for it, ``streaming`` and ``team`` may be asynchronous functions that run its agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

TESTS = Path(__file__).parents[1]

KEY = "sk-own"
MODEL = "own-model"


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    if a < 0:
        raise ValueError("only positive numbers")
    return a + b


def missing(framework: Framework) -> list[str]:
    """The packages of a framework that are not installed."""
    return absent(framework.packages)


def absent(packages: Iterable[str]) -> list[str]:
    """Those that are not installed. A folder of tests may bear a package's name."""

    def is_installed(package: str) -> bool:
        spec = find_spec(package)
        places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
        return any(place and not Path(place).is_relative_to(TESTS) for place in places)

    return [package for package in packages if not is_installed(package)]


class Framework(Protocol):
    """One framework's agents."""

    adapter: str
    """The adapter's name."""
    packages: tuple[str, ...]
    """What has to be installed, by import name; the suite skips the framework without."""
    api: str
    """Which API its agents call: ``chat`` or ``responses``."""
    gaps: dict[str, str]
    """What cannot be captured, by the name of the test, and why. The README's table shows them."""

    def solver(self, base_url: str) -> Any:
        """One agent, ``solver``, with the tool ``add``; it answers after the tool's result."""

    def streaming(self, base_url: str) -> Any:
        """The same, whose model's answers are streamed."""

    def handover(self, base_url: str) -> Any:
        """An agent ``triage`` that hands every question over to the agent ``expert``."""

    def team(self, base_url: str) -> Any:
        """A structure ``team`` in which ``writer`` answers, then ``critic``."""
