"""``python late_import.py FRAMEWORK OWN POLICY`` runs an agent that imports its framework in its own function, twice at
once, with two endpoints.

Prints what came of it as JSON: the modules that were there before, the outline of each rollout's spans, the agents that
the policy answered, and how many traces the framework itself tried to send.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from recorded import record

from agentlightning.agents import load_agent
from agentlightning.plugins import plugins
from agentlightning.records import Policy

SECONDS = 60
FOREIGN = ("openai", "langchain_core", "langgraph", "autogen_core", "autogen_agentchat", "crewai", "agents")


def main(name: str, own: str, served: str) -> None:
    sent: list[Any] = []
    together, one_by_one = threading.Barrier(2), threading.Lock()

    def agent(question: str) -> Any:
        together.wait(SECONDS)
        framework = importlib.import_module(f"adapters.frameworks.{name}").framework
        with one_by_one:
            forget_shared_client()
            made = framework.solver(own)
        if "agents" in sys.modules:
            from agents.tracing.processors import BackendSpanExporter

            BackendSpanExporter.export = lambda _, items: sent.extend(items)  # type: ignore[method-assign]
        runner = next(adapter for adapter in plugins().adapters() if adapter.accepts(made))
        return asyncio.run(runner.run(made, question))

    found, adapter = load_agent(agent, plugins())
    before = [module for module in FOREIGN if module in sys.modules]

    async def rollout(id: str) -> dict[str, Any]:
        with record(id, [Policy(name="policy", model="policy", base_url=served)]) as recorded:
            await adapter.run(found, "What is 2 + 3?")
        answered = [span.agent for span in recorded.all("llm") if span.generation.policy == "policy"]
        return {"outline": recorded.outline(), "answered": answered}

    async def both() -> list[dict[str, Any]]:
        return await asyncio.gather(rollout("first"), rollout("second"))

    rollouts = asyncio.run(both())
    if "agents" in sys.modules:
        from agents.tracing import get_trace_provider

        get_trace_provider().shutdown()
    told = {"before": before, "rollouts": rollouts, "sent": len(sent)}
    print(json.dumps(told))  # noqa: T201 - for the test


def forget_shared_client() -> None:
    """LangChain gives all its models one asynchronous client, whose connections two event loops cannot share."""
    if "langchain_openai" in sys.modules:
        from langchain_openai.chat_models import _client_utils

        _client_utils._cached_async_httpx_client.cache_clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
