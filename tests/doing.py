"""An algorithm made of one function, for tests of what a run does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agentlightning import Algorithm


class Doing(Algorithm):
    """Does one thing with its run."""

    def __init__(self, body: Callable[[Any], Awaitable[None]]) -> None:
        super().__init__(self.Config())
        self.body = body

    async def run(self, run: Any) -> None:
        await self.body(run)
