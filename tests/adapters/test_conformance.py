"""One set of agents in every framework, and one set of assertions: whatever the framework, the spans say the same.

A test that a framework cannot pass is named in its ``gaps`` with the reason, and must fail.
"""

from __future__ import annotations

import asyncio
import threading
from types import FunctionType
from typing import Any

import pytest
from adapters.framework import KEY, MODEL
from adapters.harness import Harness
from adapters.script import script
from recorded import Recorded
from stub_answers import Answer, Raw, error, text

from agentlightning import semconv
from agentlightning.errors import AgentLightningError

pytestmark = pytest.mark.asyncio(loop_scope="session")
"""One event loop for all, as in a process that trains: LangChain keeps an asynchronous client for good."""

NOWHERE = "http://127.0.0.1:9/v1"
"""Where nobody answers: an agent built with it works only if its calls are redirected."""


def check_whole(recorded: Recorded) -> None:
    """Every span has ended, without a failure, under a parent that was recorded."""
    ids = {span.id for span in recorded.spans}
    for span in recorded.spans:
        assert span.ended_at is not None, recorded.outline()
        assert span.failure is None, (span.failure, recorded.outline())
        assert span.parent_id is None or span.parent_id in ids, recorded.outline()


def check_exact(recorded: Recorded) -> None:
    """Every model call has the tokens that the engine gave."""
    for span in recorded.all("llm"):
        assert span.generation is not None
        assert (span.generation.provenance, span.generation.policy) == ("exact", "policy"), recorded.outline()


async def test_an_agent(harness: Harness) -> None:
    output, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is 2 + 3?", [harness.policy()])
    assert "5" in str(output), (output, recorded.outline())
    check_whole(recorded)
    check_exact(recorded)
    assert recorded.agents() == ["solver", "solver"], recorded.outline()
    for call in recorded.all("llm"):
        assert any(above.kind == "agent" and above.agent == "solver" for above in recorded.above(call))


async def test_a_tool_with_its_arguments_and_result(harness: Harness) -> None:
    _, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is 2 + 3?", [harness.policy()])
    order = [span.kind for span in recorded.spans if span.kind in ("llm", "tool")]
    assert order == ["llm", "tool", "llm"], recorded.outline()
    tool = recorded.only("tool")
    assert (tool.name, tool.agent) == ("add", "solver"), recorded.outline()
    assert tool.attributes[semconv.TOOL_NAME] == "add"
    assert tool.attributes[semconv.TOOL_CALL_ARGUMENTS] == {"a": 2, "b": 3}
    assert str(tool.attributes[semconv.TOOL_CALL_RESULT]) == "5"
    assert any(above.kind == "agent" and above.agent == "solver" for above in recorded.above(tool))


async def test_a_tool_call_has_its_id(harness: Harness) -> None:
    _, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is 2 + 3?", [harness.policy()])
    tool = recorded.only("tool")
    assert tool.attributes[semconv.TOOL_CALL_ID] == "call_0"


async def test_a_tool_that_raises(harness: Harness) -> None:
    _, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is -2 + 3?", [harness.policy()])
    tool = recorded.only("tool")
    assert tool.failure is not None, recorded.outline()
    assert (tool.failure.type, tool.failure.fault) == ("tool_error", "agent")
    assert "only positive numbers" in tool.failure.message


async def test_the_type_of_a_tools_exception(harness: Harness) -> None:
    _, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is -2 + 3?", [harness.policy()])
    tool = recorded.only("tool")
    assert tool.failure is not None
    assert tool.failure.exception == "builtins.ValueError"


async def test_tools_called_at_once(harness: Harness) -> None:
    output, recorded = await harness.run(
        harness.framework.solver(NOWHERE), "What is 2 + 3 and 4 + 5?", [harness.policy()]
    )
    assert "9" in str(output), recorded.outline()
    check_whole(recorded)
    tools = {tool.attributes[semconv.TOOL_CALL_ARGUMENTS]["a"]: tool for tool in recorded.all("tool")}
    assert {a: str(tool.attributes[semconv.TOOL_CALL_RESULT]) for a, tool in tools.items()} == {2: "5", 4: "9"}
    assert [tool.agent for tool in tools.values()] == ["solver", "solver"]
    assert tools[2].parent_id != tools[4].id
    assert tools[4].parent_id != tools[2].id


async def test_streamed_answers(harness: Harness) -> None:
    output, recorded = await harness.run(harness.framework.streaming(NOWHERE), "What is 2 + 3?", [harness.policy()])
    assert "5" in str(output), (output, recorded.outline())
    check_whole(recorded)
    check_exact(recorded)
    assert recorded.agents() == ["solver", "solver"]
    assert all(request.json["stream"] for request in harness.served.requests)
    assert all(semconv.TIME_TO_FIRST_TOKEN in span.attributes for span in recorded.all("llm"))


async def test_a_hand_over_between_two_agents(harness: Harness) -> None:
    output, recorded = await harness.run(harness.framework.handover(NOWHERE), "What is 2 + 3?", [harness.policy()])
    assert "5" in str(output), (output, recorded.outline())
    check_whole(recorded)
    check_exact(recorded)
    assert recorded.agents() == ["triage", "expert"], recorded.outline()


async def test_a_team_in_a_team(harness: Harness) -> None:
    output, recorded = await harness.run(harness.framework.team(NOWHERE), "What is 2 + 3?", [harness.policy()])
    assert "5" in str(output), (output, recorded.outline())
    check_whole(recorded)
    agents = recorded.agents()
    assert [agent.rpartition("/")[2] for agent in agents if agent] == ["writer", "critic"], recorded.outline()
    for call in recorded.all("llm"):
        assert any("team" in above.name for above in recorded.above(call)), recorded.outline()


async def test_a_retry_after_a_rate_limit_is_one_call(harness: Harness) -> None:
    refused = threading.Event()

    def once_refused(request: Any) -> Answer | Raw:
        if not refused.is_set():
            refused.set()
            return error(429, "slow down", retry_after="0")
        return script(request)

    harness.served.clear()
    harness.served.reply(once_refused)
    output, recorded = await harness.run(harness.framework.solver(NOWHERE), "What is 2 + 3?", [harness.policy()])
    assert "5" in str(output), (output, recorded.outline())
    check_whole(recorded)
    assert [span.attributes.get(semconv.RESEND_COUNT) for span in recorded.all("llm")] == [1, None]
    assert len(harness.served.requests) == 3


async def test_a_rollout_that_is_cancelled(harness: Harness) -> None:
    hold = threading.Event()
    harness.served.clear()
    harness.served.reply(lambda _: text("too late", hold=hold))
    try:
        agent = harness.framework.solver(NOWHERE)
        output, recorded = await harness.run(agent, "What is 2 + 3?", [harness.policy()], timeout=2)
    finally:
        hold.set()
    assert isinstance(output, Exception)
    assert recorded.spans
    assert all(span.ended_at is not None for span in recorded.spans)
    call = recorded.only("llm")
    assert call.failure is not None
    assert call.failure.type == "cancelled"
    assert call.agent == "solver"


async def test_outside_of_a_rollout_nothing_happens(harness: Harness) -> None:
    for hooked in (True, False):
        if not hooked:
            for adapter in harness.adapters.values():
                adapter.uninstall()
        harness.own.clear()
        harness.own.reply(script)
        output = await harness.adapter.run(harness.framework.solver(harness.own.base_url), "What is 2 + 3?")
        assert "5" in str(output)
        sent = [(request.path, request.json) for request in harness.own.requests]
        assert len(sent) == 2
        assert all(body["model"] == MODEL and "return_token_ids" not in body for _, body in sent)
    assert harness.served.requests == []


async def test_only_one_of_two_agents_is_trained(harness: Harness) -> None:
    question = "What is 2 + 3?"
    agent = harness.framework.handover(harness.own.base_url)
    _, recorded = await harness.run(agent, question, [harness.policy("expert")])
    check_whole(recorded)
    (own,), (served,) = harness.own.requests, harness.served.requests
    assert served.json["model"] == "policy"
    calls = {span.agent: span.generation for span in recorded.all("llm")}
    assert (calls["triage"].policy, calls["triage"].provenance) == (None, "text")
    assert (calls["expert"].policy, calls["expert"].provenance) == ("policy", "exact")
    for adapter in harness.adapters.values():
        adapter.uninstall()
    harness.own.clear()
    harness.own.reply(script)
    await harness.adapter.run(harness.framework.handover(harness.own.base_url), question)
    alone = harness.own.requests[0]
    assert own.body == alone.body
    assert dict(own.headers) == dict(alone.headers)
    assert own.header("authorization") == f"Bearer {KEY}"


async def test_64_rollouts_at_once(harness: Harness) -> None:
    count = 64
    agent = harness.framework.solver(NOWHERE)
    runs = [harness.run(agent, f"What is {1000 + n} + 1?", [harness.policy()], id=f"r{n}") for n in range(count)]
    results = await asyncio.gather(*runs)
    for n, (output, recorded) in enumerate(results):
        assert str(1001 + n) in str(output), (n, output, recorded.outline())
        assert {span.rollout_id for span in recorded.spans} == {f"r{n}"}
        tools = [tool.attributes[semconv.TOOL_CALL_ARGUMENTS] for tool in recorded.all("tool")]
        assert tools == ([{"a": 1000 + n, "b": 1}] if harness.sees_tools else []), recorded.outline()
        kinds = [span.kind for span in recorded.spans if span.kind in ("llm", "tool")]
        assert kinds == ["llm", *(["tool"] if harness.sees_tools else []), "llm"], recorded.outline()
        for span in recorded.all("llm"):
            assert f"{1000 + n} + 1" in str(span.generation.messages), "a call of another rollout"
            assert span.agent == "solver"
    assert len(harness.served.requests) == 2 * count


async def test_a_hook_that_raises_breaks_no_agent(harness: Harness, raising_hooks: Any) -> None:
    agent = harness.framework.solver(harness.own.base_url)
    raising_hooks()
    output, recorded = await harness.run(agent, "What is 2 + 3?", [])
    assert "5" in str(output), output
    assert recorded.spans == []
    assert not isinstance(output, AgentLightningError)


@pytest.mark.parametrize("name", ["solver", "streaming", "handover", "team"])
async def test_the_adapter_accepts_the_agents(harness: Harness, name: str) -> None:
    agent = getattr(harness.framework, name)(NOWHERE)
    accepting = [adapter for adapter in harness.adapters.values() if adapter.accepts(agent) and adapter.priority >= 0]
    assert accepting == ([] if isinstance(agent, FunctionType) else [harness.adapter])
