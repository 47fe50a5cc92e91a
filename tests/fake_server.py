"""A server of models that serves none: its policy is whatever answers at ``base_url``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from agentlightning.records import Policy, Prompt
from agentlightning.serving import ModelServer


class FakeServer(ModelServer):
    """Says where the stub of a test is; ``made`` and ``closed`` are what was asked of it."""

    base_url: ClassVar[str] = ""
    made: ClassVar[list[tuple[dict[str, Any], dict[str, Any]]]] = []
    closed: ClassVar[int] = 0

    def __init__(
        self,
        model: Mapping[str, Any],
        engine: Mapping[str, Any],
        *,
        prompts: Sequence[Prompt] = (),
        any_name: bool = False,
    ) -> None:
        self.made.append((dict(model), dict(engine)))

    async def start(self) -> Policy:
        return Policy(name="policy", model="fake", base_url=self.base_url)

    async def aclose(self) -> None:
        type(self).closed += 1
