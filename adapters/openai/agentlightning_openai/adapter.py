"""The adapter ``openai``: it runs no agents of its own, it watches the model calls of all of them."""

from __future__ import annotations

import os
from typing import Any

from agentlightning.adapter import Adapter
from agentlightning.errors import AdapterError
from agentlightning_openai.router import PLACEHOLDER_KEY


class OpenAIAdapter(Adapter):
    """Records every call of the ``openai`` client while a rollout is active, and routes it by its resources.

    A plain function that uses the client is run by core's function adapter; this one accepts no agent.
    """

    name = "openai"
    modules = ("openai._base_client",)
    hooks = "agentlightning_openai.hooks"

    def accepts(self, agent: Any) -> bool:
        """No object is an agent of this adapter."""
        return False

    async def run(self, agent: Any, input: Any) -> Any:
        """Raises `AdapterError`: there is nothing to run."""
        raise AdapterError(f"the openai adapter runs no agents, and was given a {type(agent).__qualname__}")

    def prepare(self) -> None:
        """Gives ``OPENAI_API_KEY`` a placeholder where it is absent, so that an agent whose calls are all
        redirected can be constructed. A key that is there is left alone."""
        os.environ.setdefault("OPENAI_API_KEY", PLACEHOLDER_KEY)
