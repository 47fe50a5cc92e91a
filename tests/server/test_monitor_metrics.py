"""GET /metrics: what Prometheus reads; bounded, counted as it happens, and for the admin alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from store_records import FOR_EVER, a_live_run, a_recorded, a_rollout, a_run, a_step

from agentlightning.records import Failure, Generation, Span, Usage
from agentlightning.store.tries import Columns, columns_of
from agentlightning_server.keys import Keys
from agentlightning_server.monitor import metrics as metrics_module
from agentlightning_server.monitor.metrics import OTHER, BoundedLabels, Metrics
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def tried(span: Span) -> tuple[Span, Columns]:
    return span, columns_of(span)


def scrape(server: LightningServer, key: str | None = None) -> Samples:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return scraped(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over all series with these labels."""
    wanted = set(labels.items())
    return sum(number for (sample, named), number in samples.items() if sample == name and wanted <= set(named))


async def work(store: RemoteStore) -> None:
    """Four rollouts: one waits, one runs, one is tried again, one has ended after a tool failed in it."""
    await store.open_run(a_run())
    await store.enqueue([a_rollout(id) for id in ("ends", "again", "runs", "waits")])
    ends, again, _ = await store.lease("w", limit=3, seconds=FOR_EVER)
    call = a_step("ends", 0, "llm", "gpt", 1.0, None)
    call.generation = Generation(model="gpt", usage=Usage(input_tokens=100, output_tokens=7))
    store.add_spans([call, a_step("ends", 1, "tool", "search", 2.0, "tool_error")])
    ends.status = "succeeded"
    await store.finish(ends)
    again.status = "queued"
    again.failed_attempts = [Failure(type="rate_limited", message="", fault="infrastructure")]
    await store.finish(again)


async def test_what_happens_on_the_server_is_counted(server: LightningServer) -> None:
    store = RemoteStore(server.url)
    await work(store)
    samples = scrape(server)
    assert value(samples, "agentlightning_rollouts", status="queued") == 2
    assert value(samples, "agentlightning_rollouts", status="running") == 1
    assert value(samples, "agentlightning_sessions") == 1
    assert value(samples, "agentlightning_attempts_ended_total", status="succeeded", purpose="train") == 1
    assert value(samples, "agentlightning_attempts_ended_total", status="retried") == 1
    assert value(samples, "agentlightning_spans_written_total") == 2
    assert value(samples, "agentlightning_steps_total", kind="tool", tool="search", agent="solver") == 1
    assert value(samples, "agentlightning_failures_total", type="tool_error", tool="search", fault="agent") == 1
    assert value(samples, "agentlightning_failures_total", type="rate_limited", kind="rollout") == 1
    assert value(samples, "agentlightning_llm_calls_total", model="gpt", agent="solver") == 1
    assert value(samples, "agentlightning_llm_tokens_total", model="gpt", direction="input") == 100
    assert value(samples, "agentlightning_llm_tokens_total", model="gpt", direction="output") == 7
    await store.close()


async def test_requests_are_counted_by_route_and_status(server: LightningServer) -> None:
    store = RemoteStore(server.url)
    await store.runs()
    for path in ("/v1/store/made-up", "/nowhere/a", "/nowhere/b"):
        httpx.post(f"{server.url}{path}")
    samples = scrape(server)
    count = "agentlightning_request_seconds_count"
    assert value(samples, count, route="/v1/store/runs", status="200", method="POST") >= 1
    assert value(samples, count, route="/v1/store/{method}", status="404") == 1
    assert value(samples, count, route="none", status="404") == 2
    assert value(samples, "agentlightning_request_seconds_bucket", route="/v1/store/runs", le="+Inf") >= 1
    await store.close()


async def test_what_an_attached_agent_hands_over_is_counted_once_however_often_it_is_sent(
    server: LightningServer,
) -> None:
    store = RemoteStore(server.url)
    for _ in range(2):
        await store.add_recorded(a_live_run(), [a_recorded("r")])
    samples = scrape(server)
    assert value(samples, "agentlightning_attempts_ended_total") == 1
    assert value(samples, "agentlightning_spans_written_total") == 1
    await store.close()


async def test_only_the_admin_key_reads_the_metrics_of_all(serve: Callable[..., LightningServer]) -> None:
    server, keys = serve(key=KEY), Keys(KEY)
    url = f"{server.url}/metrics"
    assert value(scrape(server, KEY), "agentlightning_sessions") == 0
    assert httpx.get(url).status_code == 401
    for write in (False, True):
        key = keys.issue("mine", write=write, seconds=60)
        refused = httpx.get(url, headers={"authorization": f"Bearer {key}"})
        assert (refused.status_code, "/v1/failures" in refused.json()["message"]) == (403, True)
    key = keys.issue_for_rollout("r", write=True, seconds=60)
    assert httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code == 403


def test_names_that_were_made_up_are_counted_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_VALUES", 3)
    metrics = Metrics()
    metrics.count_spans([tried(a_step("r", index, "tool", f"tool {index}", 1.0, "tool_error")) for index in range(20)])
    samples = scraped(metrics.render(unfinished={}, sessions=0).decode())
    tools = {dict(labels).get("tool") for name, labels in samples if name == "agentlightning_failures_total"}
    assert tools == {"tool 0", "tool 1", "tool 2", OTHER}
    assert value(samples, "agentlightning_failures_total") == 20
    assert value(samples, "agentlightning_failures_total", tool=OTHER) == 17


LABEL = st.none() | st.text(max_size=200)


@given(st.lists(st.tuples(LABEL, LABEL), max_size=60))
def test_labels_are_bounded_and_the_same_for_the_same_values(values: list[tuple[Any, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metrics_module, "MAX_SERIES", 10)
        patched.setattr(metrics_module, "MAX_VALUES", 5)
        labels = BoundedLabels(("a", "b"))
        given_first = [labels.of(*pair) for pair in values]
        assert len(set(given_first)) <= 11
        for place in (0, 1):
            assert len({pair[place] for pair in given_first}) <= 6
        for pair, before in zip(values, given_first, strict=True):
            assert labels.of(*pair) in (before, (OTHER, OTHER))


@given(st.text(max_size=50), st.text(max_size=50))
def test_whatever_a_tool_is_called_the_text_can_be_read(tool: str, agent: str) -> None:
    metrics = Metrics()
    step = a_step("r", 0, "tool", tool or "x", 1.0, "tool_error")
    step.agent = agent
    metrics.count_spans([tried(step)])
    samples = scraped(metrics.render(unfinished={}, sessions=0).decode())
    assert value(samples, "agentlightning_failures_total") == 1
