"""Memory and knowledge: what is looked up, what is remembered, and that a rollout forgets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from stub_answers import Answer, Raw, Received, error, text
from stub_server import StubServer

from agentlightning import semconv

SECRET = "The treasure lies under the oak."


def embeddings(request: Received) -> Raw:
    """All texts are alike."""
    given = request.json["input"]
    count = len(given) if isinstance(given, list) else 1
    data = [{"object": "embedding", "index": place, "embedding": [0.5] * 8} for place in range(count)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Raw(200, json.dumps({"object": "list", "model": "embedder", "data": data, "usage": usage}).encode())


@pytest.fixture
def remembering(stub: StubServer) -> None:
    """The stub's model thinks of one thing to remember."""

    def answer(request: Received) -> Answer | Raw:
        if request.path.endswith("embeddings"):
            return embeddings(request)
        asked = json.dumps(request.json)
        if "memories" in asked and "response_format" in request.json:
            return text(json.dumps({"memories": [SECRET]}))
        return text(SECRET)

    stub.reply(answer)


@pytest.fixture
def embedder(stub: StubServer) -> dict[str, Any]:
    return {"provider": "openai", "config": {"api_key": "k", "api_base": stub.base_url, "model_name": "embedder"}}


@pytest.mark.usefixtures("remembering")
async def test_memory_is_looked_up_written_and_forgotten_with_the_rollout(adapter, rollout, made, embedder):
    crew = made.crew(made.task(made.agent("writer")), made.task(made.agent("critic")), memory=True, embedder=embedder)
    kept = Path(os.environ["CREWAI_STORAGE_DIR"]) / "memory"
    before = set(kept.rglob("*"))
    for _ in range(2):
        with rollout() as recorded:
            await adapter.run(crew, "Where is it?")
        first, second = recorded.all("retrieval", "memory")
        assert first.attributes[semconv.RETRIEVAL_QUERY] == "Where is it?"
        assert first.attributes[semconv.RETRIEVAL_DOCUMENTS] == [], "what an earlier rollout remembered"
        assert SECRET in json.dumps(second.attributes[semconv.RETRIEVAL_DOCUMENTS], default=str)
        assert [found.agent for found in (first, second)] == ["writer", "critic"]
        assert recorded.all("annotation", "memory_save")
        assert all(call.agent in ("writer", "critic") for call in recorded.all("llm"))
    assert set(kept.rglob("*")) == before


@pytest.mark.usefixtures("remembering")
async def test_knowledge_is_looked_up(adapter, rollout, made, embedder):
    source = StringKnowledgeSource(content="Oaks grow tall.")
    crew = made.crew(made.task(made.agent("writer")), knowledge_sources=[source], embedder=embedder)
    with rollout() as recorded:
        await adapter.run(crew, "How tall are oaks?")
    found = recorded.only("retrieval", "knowledge")
    assert found.agent == "writer"
    assert found.attributes[semconv.RETRIEVAL_QUERY] == SECRET
    assert "Oaks grow tall." in found.attributes[semconv.RETRIEVAL_DOCUMENTS][0]
    (task,) = [span for span in recorded.spans if span.attributes.get(semconv.STRUCTURE) == "task"]
    assert found.parent_id == recorded.only("agent", "writer").parent_id == task.id
    embedded = [call for call in recorded.all("llm") if call.name.startswith("embeddings")]
    assert embedded[-1].parent_id == found.id
    assert all(call.parent_id is not None for call in embedded), "a copy of the crew embeds nothing"


async def test_knowledge_for_which_no_question_is_found_holds_nothing_up(adapter, rollout, made, stub, embedder):
    def answer(request: Received) -> Answer | Raw:
        if request.path.endswith("embeddings"):
            return embeddings(request)
        return error(400, "no") if "rewrite" in json.dumps(request.json) else text("said")

    stub.reply(answer)
    source = StringKnowledgeSource(content="Oaks grow tall.")
    crew = made.crew(made.task(made.agent("writer")), knowledge_sources=[source], embedder=embedder)
    with rollout() as recorded:
        await adapter.run(crew, "How tall are oaks?")
    assert [line for line in recorded.outline() if "embeddings" not in line][1:] == [
        "  task How tall are oaks? [writer]",
        "    retrieval knowledge [writer]",
        "      llm chat stub-model [writer] !bad_request",
        "    agent writer [writer]",
        "      llm chat stub-model [writer]",
    ]
