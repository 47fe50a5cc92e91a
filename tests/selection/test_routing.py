"""A router that was published is asked for every rollout: in the model layer, when served, and told in the record."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning import Task, Trainer, recording, semconv
from agentlightning.errors import ConfigError, PluginError, PolicyError
from agentlightning.model_routing import Router, choice_for, digest_of_folder, load_router, request_text
from agentlightning.promotion.spending import price_of
from agentlightning.recording import Recorder
from agentlightning.records import ModelChoice, ModelRouter, Rollout, Span
from agentlightning.serving import Servable, ServedModel
from agentlightning.store import open_store
from agentlightning.store.base import RunRecord
from agentlightning_openai.adapter import OpenAIAdapter

TASKS = [Task(id=str(number), input=f"{'sum' if number % 2 else 'city'} {number}") for number in range(50)]
KEY = "sk-the-agents-own"


class ByLength(Router):
    """Long texts to the second model."""

    def choose(self, text: str) -> int:
        return int(len(text) > 10)


class Lost(Router):
    """Always chooses one that is not there."""

    def choose(self, text: str) -> int:
        return 7


def features(text: str) -> list[float]:
    """The kind of a question."""
    return [float(text.startswith("sum")), float(text.startswith("city"))]


def of_another_length(text: str) -> list[float]:
    return [1.0] * len(text)


def right(rollout: Rollout, task: Task) -> float:
    """The answers of the endpoints say whether they know."""
    return float(str(rollout.output).startswith("I know"))


@functools.cache
def client() -> openai.OpenAI:
    return openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0)


def agent(question: str) -> str:
    """Asks twice, and answers with the second."""
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    for _ in range(2):
        answer = client().chat.completions.create(model="gpt", messages=messages)
        messages += [answer.choices[0].message.to_dict(), {"role": "user", "content": "Are you sure?"}]
    return answer.choices[0].message.content or ""


@pytest.fixture
def stubs() -> Iterator[dict[str, StubServer]]:
    """An endpoint that knows sums and one that knows cities."""
    with StubServer() as sums, StubServer() as cities:
        for stub, kind in ((sums, "sum"), (cities, "city")):

            def answer(request: Received, kind: str = kind) -> Answer:
                return text("I know." if first_question(request).startswith(kind) else "No idea.")

            stub.reply(answer)
        yield {"sum": sums, "city": cities}


def first_question(request: Received) -> str:
    question: str = next(message["content"] for message in request.json["messages"] if message["role"] == "user")
    return question


def train(folder: Path, stubs: dict[str, StubServer], **options: Any) -> Any:
    candidates = [
        {"model": f"of-{kind}", "base_url": stub.base_url, "input_price": price, "output_price": price}
        for (kind, stub), price in zip(stubs.items(), (2.0, 1.0), strict=True)
    ]
    algorithm = {
        "name": "selection",
        "strategy": "contextual",
        "batch": 8,
        "features": f"{__name__}:features",
        "candidates": candidates,
        **options,
    }
    return Trainer(
        agent,
        TASKS[10:],
        right,
        algorithm,
        held_out=TASKS[:10],
        store=f"sqlite:///{folder}/runs.db",
        directory=folder,
    )


async def of_run(folder: Path, run_id: str) -> tuple[RunRecord, list[Any], list[list[Span]]]:
    """The run, what it published last, and the spans of its last evaluation."""
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        run = await store.run(run_id)
        assert run is not None
        rollouts = await store.rollouts(run_id, purpose="evaluate")
        last = [one for one in rollouts if one.step == max(other.step for other in rollouts)]
        spans = [await store.spans(rollout.id, attempt=rollout.attempt) for rollout in last]
        return run, list(await store.published(run)), spans
    finally:
        await store.close()


@pytest.mark.parametrize("learner", ["nearest", "linucb"])
def test_the_published_router_sends_each_rollout_to_the_model_that_knows(
    tmp_path: Path, stubs: dict[str, StubServer], learner: str
) -> None:
    result = train(tmp_path, stubs, learner=learner).fit()
    before, after = result.evaluations
    assert before.mean == 0.5
    assert after.mean == 1.0
    assert result.results["model"] == "chosen for each rollout, of of-sum, of-city"
    run, (router,), spans_of = asyncio.run(of_run(tmp_path, result.run_id))
    assert isinstance(router, ModelRouter)
    for spans in spans_of:
        calls = [span for span in spans if span.kind == "llm"]
        assert len(calls) == 2
        first = next(m["content"] for m in calls[0].generation.messages if m["role"] == "user")  # type: ignore[union-attr]
        wanted = f"of-{first.split()[0]}"
        assert [call.generation.model for call in calls if call.generation is not None] == [wanted] * 2
        assert [call.attributes[semconv.MODEL_CHOICE] for call in calls] == [wanted] * 2
        price = 2.0 if wanted == "of-sum" else 1.0
        tokens = sum(
            call.generation.usage.input_tokens + call.generation.usage.output_tokens
            for call in calls
            if call.generation is not None and call.generation.usage is not None
        )
        assert sum(price_of(call, [router]) or 0.0 for call in calls) == pytest.approx(tokens * price / 1e6)

    for stub in stubs.values():
        stub.requests.clear()
    with ServedModel(Servable.of_run(run, [router])) as served:
        asking = client().with_options(base_url=served.base_url)
        for question in ("sum 1", "city 2", "sum 3"):
            asking.chat.completions.create(model="any", messages=[{"role": "user", "content": question}])
    assert [first_question(request) for request in stubs["sum"].requests] == ["sum 1", "sum 3"]
    assert [request.json["model"] for request in stubs["city"].requests] == ["of-city"]
    assert KEY.encode() not in b"".join(str(request.headers).encode() for request in stubs["sum"].requests)


def test_a_cost_limit_keeps_the_mean_under_it(tmp_path: Path, stubs: dict[str, StubServer]) -> None:
    """Where the limit lies between the cheap model and both, some sums go to the model that does not know them."""
    free = train(tmp_path / "free", stubs, compare_held_out=True).fit()
    rows = [line.split(",") for line in Path(free.results["front table"]).read_text().splitlines()[1:]]
    assert {row[0] for row in rows} == {"cross-validated", "held out"}
    cheapest = min(float(row[3]) for row in rows if row[0] == "cross-validated")
    limited = train(tmp_path / "limited", stubs, cost_limit=cheapest * 1.001).fit()
    assert limited.evaluations[-1].mean == 0.5
    assert free.evaluations[-1].mean == 1.0


def test_a_limit_below_the_cheapest_is_an_error(tmp_path: Path, stubs: dict[str, StubServer]) -> None:
    with pytest.raises(Exception, match=r"algorithm.cost_limit: 1e-09 dollars a rollout, and even the cheapest"):
        train(tmp_path, stubs, cost_limit=1e-9).fit()


def test_routing_that_is_no_better_than_one_model_is_a_tie(tmp_path: Path, stubs: dict[str, StubServer]) -> None:
    """Both know everything: nothing is to be gained by choosing."""
    for stub in stubs.values():
        stub.clear()
        stub.reply(lambda request: text("I know."))
    result = train(tmp_path, stubs).fit()
    assert "tie (+0 on 40 tasks" in result.results["tie"]
    assert result.results["model"] in ("of-sum", "of-city")


def test_features_that_are_no_row_of_numbers_are_refused_by_name(tmp_path: Path, stubs: dict[str, StubServer]) -> None:
    with pytest.raises(ConfigError, match=r"algorithm.features: .*of_another_length has to give as many numbers"):
        train(tmp_path, stubs, features=f"{__name__}:of_another_length").fit()


def test_an_embedding_that_is_not_there_is_refused_by_name(tmp_path: Path, stubs: dict[str, StubServer]) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ConfigError, match=r"algorithm.features: the embedding .*nowhere cannot be loaded"):
        train(tmp_path, stubs, features=str(tmp_path / "nowhere")).fit()


CHOICES = (ModelChoice(name="short", model="a"), ModelChoice(name="long", model="b"))


def routed(router: str = f"{__name__}:ByLength", **fields: Any) -> ModelRouter:
    return ModelRouter(name="model", choices=CHOICES, router=router, **fields)


def test_the_first_message_of_a_user_decides_whatever_the_api() -> None:
    parts = [{"type": "text", "text": "a long "}, {"type": "text", "text": "question"}]
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}, {"role": "user", "content": "b"}]
    assert request_text({"messages": chat}, "chat") == "a long question"
    assert request_text({"input": "a question"}, "responses") == "a question"
    assert request_text({"input": [{"role": "user", "content": parts}]}, "responses") == "a long question"
    assert request_text({"prompt": ["a", "b"]}, "text_completion") == "a"
    assert request_text({"messages": []}, "chat") == ""
    assert choice_for(routed(), "a long question").name == "long"


def test_a_rollout_stays_with_the_model_of_its_first_call() -> None:
    adapter, spans = OpenAIAdapter(), list[Span]()
    adapter.install()
    try:
        with (
            StubServer() as stub,
            recording.recording(Recorder("rollout", 1, spans.extend, [routed()])),
        ):
            for question in ("Hi", "a much longer question"):
                asking = client().with_options(base_url=stub.base_url)
                asking.chat.completions.create(model="gpt", messages=[{"role": "user", "content": question}])
    finally:
        adapter.uninstall()
    assert [request.json["model"] for request in stub.requests] == ["a", "a"]
    assert [span.attributes[semconv.MODEL_CHOICE] for span in spans] == ["short", "short"]


def test_a_router_that_is_not_installed_says_what_is_missing() -> None:
    with pytest.raises(PluginError, match="router 'nobodys' is not installed"):
        load_router(routed("nobodys"))


def test_a_router_that_chooses_what_is_not_there_is_an_error() -> None:
    with pytest.raises(PolicyError, match="chose number 7, and there are 2 models"):
        choice_for(routed(f"{__name__}:Lost"), "x")


def test_what_was_learned_has_to_be_there_and_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "router"
    with pytest.raises(PolicyError, match=r"there is no folder .*router, which holds what the router"):
        load_router(routed(path=str(folder), learned="0"))
    folder.mkdir()
    (folder / "weights").write_text("1")
    resource = routed(path=str(folder), learned=digest_of_folder(folder))
    assert isinstance(load_router(resource), ByLength)
    (folder / "weights").write_text("2")
    changed = routed(path=str(folder), learned=resource.learned, version=1)
    with pytest.raises(PolicyError, match="is not what was published"):
        load_router(changed)


def test_a_folder_that_holds_no_router_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="holds no contextual router that can be read"):
        load_router(routed("contextual", path=str(tmp_path)))


def test_where_it_lies_is_no_part_of_what_it_is() -> None:
    assert routed(path="here", learned="1").digest == routed(path="there", learned="1").digest
    assert routed(path="here", learned="1").digest != routed(path="here", learned="2").digest
