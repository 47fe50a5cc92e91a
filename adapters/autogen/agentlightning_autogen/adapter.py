"""Which AutoGen objects are agents, and how to run one on a task's input."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from agentlightning.adapter import Adapter, supports

OLDEST, BELOW = "0.7.0", "0.8"


class AutoGenAdapter(Adapter):
    """Runs AutoGen AgentChat agents and teams, each rollout on a copy of its own.

    AutoGen is touched only when the agent's own code has imported it.
    """

    name: ClassVar[str] = "autogen"
    modules: ClassVar[tuple[str, ...]] = ("autogen_core", "autogen_agentchat.base")

    def accepts(self, agent: Any) -> bool:
        """True for every ``ChatAgent`` and ``Team``."""
        base = sys.modules.get("autogen_agentchat.base")
        kinds = tuple(kind for name in ("ChatAgent", "Team") if isinstance(kind := getattr(base, name, None), type))
        return isinstance(agent, kinds)

    async def run(self, agent: Any, input: Any) -> Any:
        """Runs a copy of the agent with the input as its task; returns its messages and stop reason as plain data
        (`agentlightning_autogen.plain`), the answer last.

        The input is a text or a list of messages. What a participant of a team raises comes out as it was raised,
        where AutoGen has a ``RuntimeError`` with its text. Raises `AdapterError` where the input is anything else.
        """
        from agentlightning_autogen import running

        return await running.run(agent, input)

    def hook(self) -> None:
        """Hooks into AutoGen, where it is of a version that is supported."""
        if supports("autogen-agentchat" if "autogen_agentchat" in sys.modules else "autogen-core", OLDEST, BELOW):
            from agentlightning_autogen import hooks

            hooks.install()

    def unhook(self) -> None:
        """Puts AutoGen back as it was."""
        hooks = sys.modules.get("agentlightning_autogen.hooks")
        if hooks is not None:
            hooks.uninstall()
