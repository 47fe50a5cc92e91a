"""Text that grows token by token, of which only what can no longer change is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentlightning_gateway.tool_calls import may_become_call
from agentlightning_gateway.tool_formats import ToolFormat


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


class IncrementalDetokenizer:
    """The text of a streamed answer. What may become a tool call in the format ``tools`` is held back; ``thought`` is
    the mark of a thought that the prompt began already."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str],
        *,
        tools: ToolFormat | None = None,
        thought: str | None = None,
    ) -> None:
        self._decode = decode
        self._stops = stops
        self._tools = tools
        self._thought = thought
        self.shown = 0
        """Characters sent so far."""

    def push(self, ids: Sequence[int]) -> str:
        """What can be shown now that all of ``ids`` are there, beyond what was shown before."""
        text = cut_at_stop(self._decode(ids), self._stops).rstrip("\ufffd")
        safe = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        if self._tools is not None:
            safe = min(safe, may_become_call(text, self._thought, self._tools))
        new = text[self.shown : safe]
        self.shown = max(self.shown, safe)
        return new


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
