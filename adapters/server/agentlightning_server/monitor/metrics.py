"""What the server counts since it was started, in the text format of Prometheus.

Labels are bounded: what agents, tools, models and failures are called is theirs to say, and a name that a model made
up must not become a series for ever. After `MAX_VALUES` names of a label, and `MAX_SERIES` combinations, the next ones
are ``other``.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from agentlightning.records import Rollout, Span, Usage
from agentlightning.store.tries import Columns
from agentlightning_server.monitor.tries import failure_of_attempt

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
MAX_VALUES = 50
MAX_SERIES = 500
OTHER = "other"
MAX_LENGTH = 100
"""Characters of a label's value."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds. A request that waits for a rollout is answered after 20 at most; a model may take longer."""
UNFINISHED = ("queued", "running")


class BoundedLabels:
    """The values of several labels as they are, as long as there are few of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._values: list[set[str]] = [set() for _ in names]
        self._series: set[tuple[str, ...]] = set()

    def of(self, *values: str | None) -> tuple[str, ...]:
        """The values to count under; one that is None is empty."""
        bounded = tuple(_known(known, value or "") for known, value in zip(self._values, values, strict=True))
        if bounded in self._series:
            return bounded
        if len(self._series) >= MAX_SERIES:
            return (OTHER,) * len(values)
        self._series.add(bounded)
        return bounded


def _known(known: set[str], value: str) -> str:
    value = value[:MAX_LENGTH].encode(errors="replace").decode()
    if value in known:
        return value
    if len(known) >= MAX_VALUES:
        return OTHER
    known.add(value)
    return value


class _Counted:
    """A counter with bounded labels. Finding a series among them takes longer than counting: those of the latest values
    are kept at hand."""

    def __init__(self, registry: CollectorRegistry, name: str, what: str, *labels: str) -> None:
        self._counter = Counter(f"agentlightning_{name}", what, labels, registry=registry)
        self._labels = BoundedLabels(labels)
        self._at_hand: dict[tuple[str | None, ...], Counter] = {}

    def add(self, amount: float, *values: str | None) -> None:
        series = self._at_hand.get(values)
        if series is None:
            if len(self._at_hand) >= MAX_SERIES:
                self._at_hand.clear()
            series = self._at_hand[values] = self._counter.labels(*self._labels.of(*values))
        series.inc(amount)


class Metrics:
    """Everything that ``GET /metrics`` tells. Counted from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        use = ("kind", "agent", "tool", "model")
        self._spans = _Counted(registry, "spans_written", "Spans handed over to the store.", "kind")
        self._steps = _Counted(registry, "steps", "Steps of rollouts that have ended: calls of models, tools …", *use)
        self._failures = _Counted(
            registry, "failures", "Failures of rollouts (of each attempt) and of steps.", "type", "fault", *use
        )
        self._rollouts = _Counted(
            registry, "attempts_ended", "Attempts of rollouts that have ended; retried ones too.", "status", "purpose"
        )
        self._calls = _Counted(registry, "llm_calls", "Calls of models recorded.", "model", "agent")
        self._tokens = _Counted(registry, "llm_tokens", "Tokens of calls recorded.", "model", "direction")
        self._alerts = _Counted(registry, "alerts", "Shares of failures that changed beyond chance.", "direction")
        self._unfinished = Gauge(
            "agentlightning_rollouts", "Rollouts that wait to be run, or run.", ["status"], registry=registry
        )
        self._sessions = Gauge("agentlightning_sessions", "Stores that clients have open.", registry=registry)
        self._requests = Histogram(
            "agentlightning_request_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._routes = BoundedLabels(("method", "route", "status"))

    def count_spans(self, spans: Sequence[tuple[Span, Columns]]) -> None:
        """Counts spans, each with what it is as a try."""
        alike: dict[tuple[str, bool, tuple[str | None, ...]], int] = {}
        tokens: dict[str | None, Usage] = {}
        for span, step in spans:
            key = span.kind, step.ended_at is not None, step[:4]
            alike[key] = alike.get(key, 0) + 1
            if span.kind == "llm" and span.generation is not None and span.generation.usage is not None:
                sums = tokens.setdefault(step.used, Usage())
                sums.input_tokens += max(0, span.generation.usage.input_tokens)
                sums.output_tokens += max(0, span.generation.usage.output_tokens)
        for (kind, is_try, (agent, used, failure, fault)), count in alike.items():
            self._spans.add(count, kind)
            if is_try:
                self._count_steps(count, kind, Columns(agent, used, failure, fault))
        for model, usage in tokens.items():
            self._tokens.add(usage.input_tokens, model, "input")
            self._tokens.add(usage.output_tokens, model, "output")

    def _count_steps(self, count: int, kind: str, step: Columns) -> None:
        tool, model = (step.used if kind == wanted else None for wanted in ("tool", "llm"))
        self._steps.add(count, kind, step.agent, tool, model)
        if step.failure is not None:
            self._failures.add(count, step.failure, step.fault, kind, step.agent, tool, model)
        if kind == "llm":
            self._calls.add(count, model, step.agent)

    def count_attempt(self, rollout: Rollout) -> None:
        self._rollouts.add(1, "retried" if rollout.status == "queued" else rollout.status, rollout.purpose)
        type, fault = failure_of_attempt(rollout)
        if type is not None:
            self._failures.add(1, type, fault, "rollout", None, None, None)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(*self._routes.of(method, route, str(status))).observe(seconds)

    def count_alert(self, rose: bool) -> None:
        self._alerts.add(1, "rise" if rose else "fall")

    def render(self, *, unfinished: dict[str, int], sessions: int) -> bytes:
        """The text, with what is so now: rollouts by status, and how many sessions are open."""
        for status in UNFINISHED:
            self._unfinished.labels(status).set(unfinished.get(status, 0))
        self._sessions.set(sessions)
        return generate_latest(self._registry)
