"""Model calls that CrewAI makes without the ``openai`` client."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context

import agentlightning
from agentlightning import semconv

TELLS_USAGE = "usage" in LLMCallCompletedEvent.model_fields


class Parrot(BaseLLM):
    """Another provider's model: it tells of its calls as CrewAI's own do, and asks nobody."""

    def work(self) -> None:
        """What it does before it answers."""

    def call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
        with llm_call_context():
            self._emit_call_started_event(messages=messages)
            self.work()
            if self.model == "broken":
                try:
                    raise OverloadedError
                except OverloadedError as error:
                    self._emit_call_failed_event(str(error))
                    self._emit_call_failed_event(str(error))
                    raise
            usage = {"usage": USAGE} if TELLS_USAGE else {}
            self._emit_call_completed_event("Polly", LLMCallType.LLM_CALL, **usage)
            return "Polly"


USAGE = {"prompt_tokens": 7, "completion_tokens": 2}


class OverloadedError(Exception):
    status_code = 429


async def test_a_call_of_another_providers_client_is_kept_as_text(adapter, rollout, stub, made):
    with rollout() as recorded:
        output = await adapter.run(made.crew(made.task(made.agent("writer", llm=Parrot(model="parrot")))), "Who?")
    assert output["output"] == "Polly"
    call = recorded.only("llm", "chat parrot")
    assert (call.agent, call.generation.provenance, call.generation.model) == ("writer", "text", "parrot")
    assert call.generation.response == {"role": "assistant", "content": "Polly"}
    assert "Who?" in call.generation.messages[-1]["content"]
    if TELLS_USAGE:
        assert (call.attributes[semconv.USAGE_INPUT_TOKENS], call.generation.usage.output_tokens) == (7, 2)
    assert stub.requests == []


async def test_its_failure_is_known_by_its_status(adapter, rollout, made):
    with rollout() as recorded, pytest.raises(OverloadedError):
        await adapter.run(made.crew(made.task(made.agent("writer", llm=Parrot(model="broken")))), "Who?")
    for call in recorded.all("llm"):
        assert (call.failure.type, call.failure.fault) == ("rate_limited", "infrastructure")
        assert call.agent == "writer"


class Busy(Parrot):
    """Notes something, and lets a thread of its own do a part, before it answers."""

    def work(self) -> None:
        agentlightning.annotate("asked")
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()


async def test_a_note_or_a_thread_in_a_model_of_ones_own_hides_no_call(adapter, rollout, made):
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("writer", llm=Busy(model="parrot")))), "Who?")
    assert recorded.only("llm", "chat parrot").generation.response["content"] == "Polly"
    assert recorded.only("annotation", "asked").agent == "writer"
