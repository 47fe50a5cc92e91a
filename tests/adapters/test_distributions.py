"""What installing one adapter brings: its framework, and no other; and what every adapter is made of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FRAMEWORKS = {
    "agentlightning": set(),
    "agentlightning-openai": set(),
    "agentlightning-langgraph": {"langchain-core", "langgraph"},
    "agentlightning-autogen": {"autogen-agentchat", "autogen-core"},
    "agentlightning-crewai": {"crewai"},
    "agentlightning-openai-agents": {"openai-agents"},
    "agentlightning-otel": set(),
    "agentlightning-import": set(),
    "agentlightning-client": set(),
    "agentlightning-server": set(),
    "agentlightning-gateway": {"transformers"},
}
"""The distributions of frameworks that each of ours brings."""

ALL = {*set().union(*FRAMEWORKS.values()), "langchain", "autogen-ext", "torch", "transformers", "vllm"}


def brought(
    name: str, extras: frozenset[str] = frozenset(), seen: set[tuple[str, frozenset[str]]] | None = None
) -> Iterator[str]:
    """The names of all distributions that installing one installs here, itself included."""
    seen = set() if seen is None else seen
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for line in requires(name) or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield from brought(canonicalize_name(need.name), frozenset(need.extras), seen)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_distribution_brings_its_framework_alone(name: str) -> None:
    try:
        requires(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} not installed")
    assert ALL.intersection(brought(name)) == FRAMEWORKS[name]


SHAPE = {"__init__", "plugin", "adapter", "hooks", "calls", "span_stack", "internals", "entry_points"}
"""The files of every adapter of an agent framework."""

MORE = {"isolation", "serialize", "answer_cache"}
"""Those that some frameworks need besides: copies for each rollout, values as plain data, LangChain's cache."""


@pytest.mark.parametrize("name", ["autogen", "crewai", "langgraph", "openai-agents"])
def test_adapters_of_frameworks_have_one_shape(name: str) -> None:
    package = Path(__file__).parents[2] / "adapters" / name / f"agentlightning_{name.replace('-', '_')}"
    files = {path.stem for path in package.glob("*.py")}
    assert SHAPE <= files <= SHAPE | MORE
