"""The names that AutoGen does not promise, all of them: read here, and nowhere else.

Checked with autogen-agentchat and autogen-core 0.7.0 and 0.7.5. Where one is missing, what depends on it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autogen_core import MessageHandlerContext

from agentlightning.errors import AdapterError

HANDLER_CONTEXT: Any = MessageHandlerContext
HANDLER_METHOD = "populate_context"
"""The context in which the runtime has an agent handle a message; without it, a selector's calls are the team's."""


def team_id(team: Any) -> str | None:
    """The key of a team's participants and manager in the runtime; None: the context says where they are."""
    found = getattr(team, "_team_id", None)
    return found if isinstance(found, str) else None


def handoffs(agent: Any) -> Mapping[str, Any]:
    """An agent's hand-offs by the name of their tool; where there is none, they are tools like any other."""
    found = getattr(agent, "_handoffs", None)
    return found if isinstance(found, Mapping) else {}


def renew(team: Any) -> None:
    """Gives a copied team an id, a runtime and queues of its own, as its constructor does.

    Raises `AdapterError` where this AutoGen keeps its teams otherwise.
    """
    from autogen_agentchat.teams import BaseGroupChat

    if not isinstance(team, BaseGroupChat):
        return
    try:
        messages = team._message_factory
        BaseGroupChat.__init__(
            team,
            name=team._name,
            description=team._description,
            participants=team._participants,
            group_chat_manager_name=team._group_chat_manager_name,
            group_chat_manager_class=team._base_group_chat_manager_class,
            termination_condition=team._termination_condition,
            max_turns=team._max_turns,
            emit_team_events=team._emit_team_events,
        )
        team._message_factory = messages
    except (AttributeError, TypeError) as error:
        raise AdapterError(
            f"the team {type(team).__name__} cannot be copied for a rollout of its own ({error}): name an async "
            "function (input) -> output that makes a team and runs it"
        ) from error
