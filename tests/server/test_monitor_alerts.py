"""A share that changes is told: to the log, to plugins and to a URL; once, and without holding anything up."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import httpx
import pytest
from store_records import FOR_EVER, a_rollout, a_run, a_step

from agentlightning import hookimpl
from agentlightning.plugins import plugins
from agentlightning.share_changes import FailureChange, ShareChange
from agentlightning_server.errors import ServerError
from agentlightning_server.monitor import alerts
from agentlightning_server.monitor.alerts import Alerts
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

SECONDS = 20.0
"""How long is waited for what must come."""


class Receiver:
    """A real HTTP server: what was sent to it, and what it answers."""

    def __init__(self) -> None:
        self.bodies: Queue[Any] = Queue()
        self.statuses: list[int] = []
        self.answer = threading.Event()
        self.answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                receiver.answer.wait(SECONDS)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, format: str, *values: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks/T0123456789/a-secret-path"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.answer.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "LONGEST_PAUSE", 0.01)


def a_change(run_id: str = "run") -> FailureChange:
    change = ShareChange(failed_before=2, tried_before=100, failed_since=12, tried_since=40, p_value=1e-4)
    return FailureChange(
        run_id=run_id,
        purpose="train",
        kind="tool",
        agent="solver",
        used="search",
        type="tool_error",
        fault="agent",
        change=change,
        changed_at=1.0,
        noticed_at=2.0,
        rollout_id="r",
    )


async def told(*changes: FailureChange, url: str | None, notify: Callable[[FailureChange], None] | None = None) -> None:
    """Tells the changes, and gives them a time to arrive."""
    noticed = Alerts(notify or (lambda change: None), url)
    noticed.start()
    for change in changes:
        noticed.tell(change)
    async with asyncio.timeout(SECONDS):
        while not noticed._to_send.empty():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
    await noticed.close()


async def begin_to_fail(store: RemoteStore) -> None:
    """A tool that never failed fails in every rollout."""
    await store.open_run(a_run())
    await store.enqueue([a_rollout(str(number)) for number in range(48)])
    for number, leased in enumerate(await store.lease("w", limit=48, seconds=FOR_EVER)):
        store.add_spans([a_step(leased.id, 0, "tool", "search", 1.0, "tool_error" if number >= 36 else None)])
        leased.status = "succeeded"
        await store.finish(leased)


async def test_a_server_tells_once_that_a_tool_began_to_fail(
    serve: Callable[..., LightningServer], receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    heard: Queue[FailureChange] = Queue()

    class Plugin:
        @hookimpl
        def failure_share_changed(self, change: FailureChange) -> None:
            heard.put(change)

    plugin = Plugin()
    manager = plugins()._manager
    manager.register(plugin)
    try:
        store = RemoteStore(serve(alert_url=receiver.url).url)
        await begin_to_fail(store)
        change = await asyncio.to_thread(heard.get, True, SECONDS)
        sent = await asyncio.to_thread(receiver.bodies.get, True, SECONDS)
        await store.close()
    finally:
        manager.unregister(plugin)
    assert (change.used, change.type, change.change.before, change.change.since) == ("search", "tool_error", 0.0, 1.0)
    assert (sent["event"], sent["used"], sent["change"]["tried_before"]) == ("failure_share_changed", "search", 36)
    assert (sent["change"]["before"], sent["change"]["since"]) == (0.0, 1.0)
    assert sent["text"] == str(change)
    assert heard.empty()
    assert receiver.bodies.empty()
    assert sum(str(change) in record.getMessage() for record in caplog.records) == 1
    metrics = httpx.get(f"{store._connection.url}/metrics").text
    assert 'agentlightning_alerts_total{direction="rise"} 1.0' in metrics


async def test_it_is_sent_again_until_it_is_taken(receiver: Receiver) -> None:
    receiver.statuses = [503, 500, 204]
    await told(a_change(), url=receiver.url)
    assert receiver.bodies.qsize() == 3


async def test_after_some_attempts_it_is_given_up_and_the_next_one_is_sent(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [503] * alerts.ATTEMPTS
    await told(a_change("first"), a_change("second"), url=receiver.url)
    runs = [receiver.bodies.get()["run_id"] for _ in range(alerts.ATTEMPTS + 1)]
    assert runs == ["first"] * alerts.ATTEMPTS + ["second"]
    assert "was given up after 5 attempts" in caplog.text


async def test_a_refusal_is_logged_and_not_tried_again(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.statuses = [403]
    await told(a_change(), url=receiver.url)
    assert receiver.bodies.qsize() == 1
    assert "refused by 127.0.0.1 with status 403" in caplog.text


async def test_the_url_is_told_nowhere(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.statuses = [403]
    await told(a_change(), url=receiver.url)
    with pytest.raises(ServerError) as refused:
        Alerts(print, "slack.example.com/hooks/T0123456789/another-secret")
    assert "a-secret-path" not in caplog.text
    assert "secret" not in str(refused.value)


async def test_who_never_answers_and_who_never_returns_hold_nothing_up(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_WAITING", 3)
    receiver.answer.clear()
    for_ever = threading.Event()
    noticed = Alerts(lambda change: for_ever.wait(SECONDS) and None, receiver.url)
    noticed.start()
    for _ in range(20):
        noticed.tell(a_change())
    async with asyncio.timeout(SECONDS):
        await noticed.close()
    for_ever.set()
    assert "this one was logged only" in caplog.text


async def test_a_plugin_that_raises_is_logged_and_hears_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    heard: Queue[str] = Queue()

    def notify(change: FailureChange) -> None:
        heard.put(change.run_id)
        raise RuntimeError("the pager is broken")

    await told(a_change("a"), a_change("b"), url=None, notify=notify)
    assert [heard.get(timeout=SECONDS), heard.get(timeout=SECONDS)] == ["a", "b"]
    assert "the pager is broken" in caplog.text


@pytest.mark.parametrize("url", ["", "alerts.example.com", "ftp://example.com", "http://", "http://[::1"])
def test_what_is_no_address_is_refused_before_anything_is_served(
    serve: Callable[..., LightningServer], url: str
) -> None:
    with pytest.raises(ServerError, match="--alert-url: expected an address"):
        serve(alert_url=url)
