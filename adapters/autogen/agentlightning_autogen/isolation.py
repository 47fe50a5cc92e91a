"""A copy of an agent or team for each rollout: both keep the messages that they got.

AutoGen's own ``dump_component`` loses the globals and closures of tool functions, and cannot dump a selector function
or an agent without a config. So the objects themselves are copied, those that hold state and no others.
"""

from __future__ import annotations

import copy
import logging
import types
from collections import deque
from dataclasses import is_dataclass
from typing import Any, TypeVar

from autogen_agentchat.base import ChatAgent, Team, TerminationCondition
from autogen_core.memory import Memory
from autogen_core.model_context import ChatCompletionContext
from autogen_core.tools import BaseTool, StaticWorkbench
from pydantic import BaseModel

from agentlightning_autogen import internals

logger = logging.getLogger(__name__)

STATEFUL = (ChatAgent, Team, TerminationCondition, ChatCompletionContext, Memory, BaseTool, StaticWorkbench, BaseModel)
FRAMEWORK = ("autogen_agentchat", "autogen_core", "autogen_ext", "pydantic")

A = TypeVar("A")


async def isolated(agent: A) -> A:
    """A copy of an agent or team as it stands, which shares nothing with it that it writes to.

    Copied: agents, teams, their model contexts, memories, termination conditions (which are reset), tools, static
    workbenches, pydantic models, dataclasses, lists, dicts and sets, and objects of the packages in which the agent's
    own classes are written. Shared: everything else, such as model clients, code executors, MCP workbenches, functions
    with what they close over, and whatever has a ``__del__``.
    """
    copier = Copier()
    own: A = copier.copy(agent)
    for condition in copier.conditions:
        await condition.reset()
    return own


class Copier:
    """One copy: the same object twice is the same copy twice."""

    def __init__(self) -> None:
        self.conditions: list[TerminationCondition] = []
        self._made: dict[int, Any] = {}
        self._own: set[str] = set()

    def copy(self, value: Any) -> Any:
        if id(value) in self._made:
            return self._made[id(value)]
        kind = type(value)
        made: Any
        if kind in (list, deque):
            made = self._made[id(value)] = kind()
            made.extend(self.copy(item) for item in value)
        elif isinstance(value, dict):
            made = self._made[id(value)] = copy.copy(value)
            for key, item in value.items():
                made[key] = self.copy(item)
        elif kind is tuple:
            made = tuple(self.copy(item) for item in value)
        elif kind is set:
            made = {self.copy(item) for item in value}
        elif isinstance(value, types.MethodType):
            made = _rebind(value, self.copy(value.__self__))
        elif self._holds_state(value):
            made = self._copy_object(value)
        else:
            made = value
        return made

    def _holds_state(self, value: Any) -> bool:
        if isinstance(value, type) or hasattr(type(value), "__del__"):
            return False
        return isinstance(value, STATEFUL) or is_dataclass(value) or _package(value) in self._own

    def _copy_object(self, value: Any) -> Any:
        if isinstance(value, STATEFUL) and _package(value) not in FRAMEWORK:
            self._own.add(_package(value))
        try:
            made = self._made[id(value)] = copy.copy(value)
        except Exception as error:  # noqa: BLE001 - a stranger's __reduce__ may raise anything
            logger.debug("%r cannot be copied and is shared between rollouts: %s", type(value), error)
            return value
        held = getattr(made, "__dict__", {}) if made is not value else {}
        for name, item in list(held.items()):
            held[name] = self.copy(item)
        if isinstance(made, Team):
            internals.renew(made)
        elif isinstance(made, TerminationCondition):
            self.conditions.append(made)
        return made


def _rebind(method: types.MethodType, owner: Any) -> Any:
    """The same method of another object, with whatever it is wrapped in there."""
    bound = getattr(owner, method.__name__, None)
    return bound if getattr(bound, "__func__", None) is method.__func__ else types.MethodType(method.__func__, owner)


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
