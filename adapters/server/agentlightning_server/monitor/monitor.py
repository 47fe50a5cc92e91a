"""The monitor of a server: is told what is written, counts it, and tells of what changed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from agentlightning.plugins import plugins
from agentlightning.promotion.production import tell
from agentlightning.recording.failures import guarded
from agentlightning.records import Rollout, Span
from agentlightning.store.base import Store
from agentlightning.store.promotions import Promotion
from agentlightning.store.tries import columns_of
from agentlightning_server.monitor.alerts import Alert, Alerts, Notify
from agentlightning_server.monitor.canaries import CanaryWatch
from agentlightning_server.monitor.metrics import Metrics
from agentlightning_server.monitor.tries import AttemptSteps
from agentlightning_server.monitor.watch import ShareWatch


def notify_plugins(alert: Alert) -> None:
    """Calls the hook of every plugin."""
    if isinstance(alert, Promotion):
        tell(alert)
    else:
        plugins().notify("failure_share_changed", change=alert)


MAX_UNCOUNTED = 256
"""Spans that may wait to be counted: to count them by each other takes a fraction of the time."""


class Monitor:
    """An observer of the server's store (`agentlightning_server.monitor.observed`). What fails in it is logged, and
    nothing else: a write that was done is done."""

    def __init__(self, *, alert_url: str | None = None, notify: Notify = notify_plugins) -> None:
        """Raises `ServerError` for a URL that is none."""
        self.metrics = Metrics()
        self._alerts = Alerts(notify, alert_url)
        self._uncounted: list[Span] = []
        self._steps = AttemptSteps()
        self._watch = ShareWatch()
        self._canaries = CanaryWatch(self._alerts.tell)
        self._lock = threading.Lock()

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[None]:
        """Inside the block, alerts are told, and the canaries in the store are watched."""
        self._alerts.start()
        watching = asyncio.create_task(self._canaries.watch(store))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._alerts.close()

    @guarded
    def spans_written(self, spans: Sequence[Span]) -> None:
        with self._lock:
            self._uncounted.extend(spans)
            if len(self._uncounted) >= MAX_UNCOUNTED:
                self._count()

    @guarded
    def attempt_ended(self, rollout: Rollout) -> None:
        self.metrics.count_attempt(rollout)
        with self._lock:
            self._count()
            changes = self._watch.add(rollout, self._steps.end(rollout))
        if rollout.purpose == "observe":
            self._canaries.wake()
        for change in changes:
            self.metrics.count_alert(change.rose)
            self._alerts.tell(change)

    @guarded
    def rewards_added(self) -> None:
        self._canaries.wake()

    def render(self, *, unfinished: dict[str, int], sessions: int) -> bytes:
        """What ``GET /metrics`` answers (`Metrics.render`)."""
        with self._lock:
            self._count()
        return self.metrics.render(unfinished=unfinished, sessions=sessions)

    def _count(self) -> None:
        spans, self._uncounted = self._uncounted, []
        steps = [(span, columns_of(span)) for span in spans]
        self.metrics.count_spans(steps)
        self._steps.add(steps)
