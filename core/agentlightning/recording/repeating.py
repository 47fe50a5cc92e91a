"""A rollout that repeats another up to one of its calls: each recorded answer goes to the call of its prompt."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from agentlightning import semconv
from agentlightning.errors import DivergedError
from agentlightning.records import Failure, Generation, Span

DIVERGED = "diverged"
"""The failure of a rollout that did not go the way of the one it repeats."""


class RecordedAnswers:
    """What the policies answered in a rollout, in the order in which its calls began, of which the first ``calls`` are
    given again. For use from any thread."""

    def __init__(self, spans: Sequence[Span], calls: int) -> None:
        self.calls = calls
        answered = [span.generation for span in sorted(spans, key=lambda span: span.index) if is_exact(span)]
        known = [(_key(generation), generation) for generation in answered if generation is not None]
        self._left, self._later = known[:calls], [key for key, _ in known[calls:]]
        self._diverged = False
        self._lock = threading.Lock()

    def take(self, asked: Generation) -> Generation | None:
        """The recorded answer to a call with this prompt; None where it is to be sampled.

        Raises `DivergedError` where nobody asked this in the recorded rollout, and not all that is to be repeated has
        been.
        """
        key = _key(asked)
        with self._lock:
            for place, (known, answer) in enumerate(self._left):
                if known == key:
                    del self._left[place]
                    return answer
            if self._left and key not in self._later:
                self._diverged = True
                raise DivergedError(
                    f"this rollout repeats another, which made no such call before its call {self.calls}: the agent, "
                    "or one of its tools, does not do the same again"
                )
        return None

    def divergence(self, spans: Sequence[Span], failure: Failure | None) -> Failure | None:
        """What is wrong with a rollout that has ended with ``failure``, where it did not repeat all that it should and
        not because of something that may be gone another time."""
        if failure is not None and failure.fault == "infrastructure" and not self._diverged:
            return None
        repeated = sum(is_exact(span) and semconv.REPLAYED in span.attributes for span in spans)
        if repeated >= self.calls and not self._diverged:
            return None
        message = f"of {self.calls} calls to repeat it made {repeated}: it went another way than the recorded rollout"
        return Failure(type=DIVERGED, message=message, fault="infrastructure")


def is_exact(span: Span) -> bool:
    """Whether a span is a call that a policy answered with tokens known exactly: a transition."""
    call = span.generation
    return call is not None and call.policy is not None and call.exact_tokens is not None


def _key(generation: Generation) -> str:
    """The same for the same prompt. The ids of tool calls are new in each rollout, and the model does not see them."""
    ids: dict[str, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if not isinstance(value, dict):
            return value.strip() if isinstance(value, str) else value
        return {
            name: ids.setdefault(str(item), len(ids)) if name in ("id", "tool_call_id") else plain(item)
            for name, item in value.items()
        }

    return json.dumps([plain(generation.messages), generation.tools], sort_keys=True, default=str)
