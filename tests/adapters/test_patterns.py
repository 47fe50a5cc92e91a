"""What the frameworks' own guides build, rebuilt: who acted is drawn by name, tools have their calls' ids, arguments
and results, and each call of a model is recorded once, with the tokens of the policy that answered it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from adapters.framework import absent
from adapters.patterns.pattern import Pattern
from instrumentations import INSTRUMENTATIONS, as_it_was
from recorded import Recorded, installed, record
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.plugins import plugins
from agentlightning.records import Policy

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOWHERE = "http://127.0.0.1:9/v1"
PACKAGES = {
    "autogen": ("autogen_agentchat", "autogen_ext", "tiktoken", "agentlightning_autogen"),
    "crewai": ("crewai", "agentlightning_crewai"),
    "langchain": ("langchain", "langchain_openai", "agentlightning_langgraph"),
    "langgraph": ("langgraph", "langchain", "langchain_openai", "agentlightning_langgraph"),
    "openai_agents": ("agents", "agentlightning_openai_agents"),
}
"""What has to be installed, by import name, for the patterns of a module in ``patterns``."""


def patterns(*titles: str) -> Iterator[Any]:
    """Those of that title, or all."""
    for name, packages in PACKAGES.items():
        if missing := absent(packages):
            skip = pytest.mark.skip(f"{', '.join(missing)} not installed")
            yield pytest.param(None, id=name, marks=skip)
            continue
        found: dict[str, Pattern] = importlib.import_module(f"adapters.patterns.{name}").PATTERNS
        for title, pattern in found.items():
            if title in (titles or found):
                yield pytest.param(pattern, id=f"{name}-{title}")


async def run(pattern: Pattern, served: StubServer, hooked: Callable[[], None] = lambda: None) -> Recorded:
    """One rollout; its model answers at ``served``. ``hooked`` is called once the adapters have been installed."""
    served.reply(*(pattern.answers if not callable(pattern.answers) else [pattern.answers]))
    adapters = plugins().adapters()
    for adapter in adapters:
        adapter.prepare()
    policy = Policy(name="policy", version=1, model="policy", base_url=served.base_url)
    others = asyncio.all_tasks()
    with installed(*adapters):
        hooked()
        agent = pattern.make(NOWHERE)
        runs = next(adapter for adapter in adapters if adapter.accepts(agent))
        with record(resources=[policy]) as recorded:
            output = await runs.run(agent, pattern.input)
        for left in (running := asyncio.all_tasks() - others):
            left.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert pattern.output in str(output), (output, recorded.outline())
    return recorded


def check(pattern: Pattern, recorded: Recorded, served: StubServer) -> None:
    assert recorded.outline() == pattern.outline, "\n".join(recorded.outline())
    calls = recorded.all("llm")
    assert len(calls) == len(served.requests), "each call is recorded once"
    for call in calls:
        said = call.generation
        assert (said.provenance, said.policy) == ("exact", "policy") if not pattern.left else said.policy == "policy"
        assert said.response is not None
    tools = [
        (tool.name, *(tool.attributes.get(key) for key in CALL))
        for tool in recorded.spans
        if tool.kind in ("tool", "handoff")
    ]
    assert len(tools) == len(pattern.tools), tools
    for found, expected in zip(tools, pattern.tools, strict=True):
        assert all(part is ... or part == whole for whole, part in zip(found, expected, strict=True)), found


CALL = (semconv.TOOL_CALL_ID, semconv.TOOL_CALL_ARGUMENTS, semconv.TOOL_CALL_RESULT)


@pytest.fixture
def served() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.mark.parametrize("pattern", list(patterns()))
async def test_a_published_pattern(pattern: Pattern, served: StubServer) -> None:
    check(pattern, await run(pattern, served), served)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("instrumentation", INSTRUMENTATIONS)
@pytest.mark.parametrize("pattern", list(patterns("supervisor", "swarm", "managed", "agents_as_tools", "first_words")))
async def test_a_published_pattern_beside_a_public_instrumentation(
    pattern: Pattern, served: StubServer, instrumentation: str, order: str
) -> None:
    """Put on the client before our hooks, or after them."""
    module, name = INSTRUMENTATIONS[instrumentation]
    pytest.importorskip(module, exc_type=ImportError)
    instrumentor = getattr(importlib.import_module(module), name)()
    with as_it_was():
        if order == "before":
            instrumentor.instrument()
        try:
            hooked = instrumentor.instrument if order == "after" else lambda: None
            check(pattern, await run(pattern, served, hooked), served)
        finally:
            instrumentor.uninstrument()
