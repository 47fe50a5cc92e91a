"""The hooks themselves: in once, out without a trace, off where the version is not supported."""

from __future__ import annotations

import contextvars
import logging
from typing import Any

import pytest
from crewai.events.event_bus import CrewAIEventsBus
from crewai.events.types.crew_events import CrewKickoffCompletedEvent, CrewKickoffStartedEvent
from crewai.events.types.memory_events import MemoryQueryStartedEvent, MemorySaveStartedEvent
from stub_answers import text

from agentlightning import adapter as core
from agentlightning.recording import context
from agentlightning_crewai import hooks
from agentlightning_crewai.adapter import CrewAIAdapter


def test_installing_twice_is_installing_once_and_uninstalling_leaves_no_trace():
    before, locators = vars(CrewAIEventsBus)["emit"], list(context._locators)
    adapter = CrewAIAdapter()
    adapter.install()
    hooked = vars(CrewAIEventsBus)["emit"]
    assert hooked is not before
    adapter.install()
    assert vars(CrewAIEventsBus)["emit"] is hooked
    adapter.uninstall()
    assert vars(CrewAIEventsBus)["emit"] is before
    assert context._locators == locators
    adapter.uninstall()


def test_under_somebody_elses_patch_it_is_switched_off(monkeypatch, caplog, rollout):
    seen: list[Any] = []
    monkeypatch.setattr(hooks, "record", lambda source, event: seen.append(event))
    ours = CrewAIEventsBus.emit
    monkeypatch.setattr(CrewAIEventsBus, "emit", lambda bus, source, event: ours(bus, source, event))
    hooks.uninstall()
    assert "patched by someone else" in caplog.text
    emit(None, CrewKickoffStartedEvent(crew_name="team", inputs=None))
    assert seen == []


@pytest.mark.parametrize("installed", ["1.10.1", "2.0.0"])
async def test_another_version_gets_one_warning_and_model_calls_alone(
    installed, monkeypatch, caplog, rollout, stub, made
):
    stub.reply(text("said"))
    CrewAIAdapter().uninstall()
    monkeypatch.setattr(core, "version", lambda distribution: installed)
    core.supports.cache_clear()
    adapter = CrewAIAdapter()
    with caplog.at_level(logging.WARNING, "agentlightning"):
        for _ in range(2):
            adapter.install()
    core.supports.cache_clear()
    assert caplog.text.count(f"crewai {installed} is outside of the supported versions, 1.11 to below 2") == 1
    with rollout() as recorded:
        output = await adapter.run(made.crew(made.task(made.agent("writer"))), "?")
    assert output["output"] == "said"
    assert recorded.outline() == ["llm chat stub-model [None]"]


def test_without_a_bus_that_can_be_listened_to_there_is_a_warning(monkeypatch, caplog):
    monkeypatch.delattr(CrewAIEventsBus, "emit")
    hooks.install()
    assert "cannot be listened to" in caplog.text
    assert not hooks._patches.in_place


async def test_a_hook_that_raises_is_logged_and_the_crew_goes_on(monkeypatch, caplog, rollout, adapter, stub, made):
    def broken(source: Any, event: Any) -> Any:
        raise RuntimeError("a hook of ours is broken")

    monkeypatch.setitem(hooks.STARTS, "task_started", broken)
    stub.reply(text("said"))
    with rollout() as recorded:
        output = await adapter.run(made.crew(made.task(made.agent("writer"))), "?")
    assert output["output"] == "said"
    assert recorded.outline() == [
        "crew team [team]",
        "  agent writer [writer]",
        "    llm chat stub-model [writer]",
    ]
    assert "a hook of ours is broken" in caplog.text


async def test_events_after_a_rollout_are_nobodys(adapter, rollout, stub, made):
    with rollout() as recorded:
        recorded.recorder.close()
        await adapter.run(made.crew(made.task(made.agent("writer"))), "?")
    assert [span for span in recorded.spans if span.kind != "llm"] == []


def emit(source: object, event: Any) -> None:
    from crewai.events.event_bus import crewai_event_bus

    crewai_event_bus.emit(source, event)


def test_a_frame_that_no_event_ends_ends_with_the_frame_around_it(rollout):
    crew, memory = object(), object()
    with rollout() as recorded:
        emit(crew, CrewKickoffStartedEvent(crew_name="team", inputs=None))
        emit(memory, MemoryQueryStartedEvent(query="?", limit=1))
        emit(crew, CrewKickoffCompletedEvent(crew_name="team", output="done"))
        emit(crew, CrewKickoffStartedEvent(crew_name="next", inputs=None))
    assert recorded.outline() == ["crew team [team]", "  retrieval memory [team]", "crew next [next]"]


def test_a_thread_in_the_background_records_under_the_frame_in_which_it_began(rollout):
    crew, memory = object(), object()
    with rollout() as recorded:
        emit(crew, CrewKickoffStartedEvent(crew_name="team", inputs=None))
        background = contextvars.copy_context()
        emit(crew, CrewKickoffCompletedEvent(crew_name="team", output="done"))
        background.run(emit, memory, MemorySaveStartedEvent(value="this"))
    assert recorded.outline() == ["crew team [team]", "  annotation memory_save [team] !cancelled"]
