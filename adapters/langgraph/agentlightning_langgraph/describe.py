"""What can be found out about an agent by looking at it: its models, system prompts and tools.

A walk from the agent through everything it holds: nodes, steps, bound arguments, and the closures, defaults
and globals that its functions name. Best effort: what cannot be looked into is left out.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import SystemMessage
from langchain_core.prompts import SystemMessagePromptTemplate
from langchain_core.tools import BaseTool

from agentlightning.describing import Found, add, walk

PROMPT_NAME = re.compile(r"prompt|instruction|system", re.IGNORECASE)
PROMPT_START = re.compile(r"\s*(You are|You will|You must|Answer|Act as|Your (task|job|role)) ")
MODEL_NAMES = ("model_name", "model", "model_id", "deployment_name")


def inspect_agent(agent: Any) -> Found:
    """Looks at an agent without running it."""
    return walk(agent, _note, _parts)


def _note(found: Found, name: str, value: Any) -> None:
    if isinstance(value, str):
        if " " in value and (PROMPT_NAME.search(name) or PROMPT_START.match(value)):
            add(found.prompts, value)
    elif isinstance(value, BaseTool):
        add(found.tools, value.name)
    elif isinstance(value, SystemMessage):
        add(found.prompts, str(value.content))
    elif isinstance(value, SystemMessagePromptTemplate):
        add(found.prompts, str(getattr(value.prompt, "template", value.prompt)))
    elif isinstance(value, BaseLanguageModel):
        names = (getattr(value, name, None) for name in MODEL_NAMES)
        add(found.models, next((name for name in names if isinstance(name, str)), type(value).__name__))
    elif isinstance(value, dict) and value.get("type") == "function" and "name" in value.get("function", {}):
        add(found.tools, value["function"]["name"])


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds that is worth looking at, by name."""
    if isinstance(value, str | BaseLanguageModel | BaseTool | types.ModuleType | type):
        return
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        is_system = len(value) == 2 and value[0] == "system"
        yield from (("system" if is_system else "", item) for item in value)
    elif isinstance(value, functools.partial):
        yield from (("", item) for item in (value.func, value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__func__), ("", value.__self__))
    elif isinstance(value, types.FunctionType):
        yield from _named_by(value)
    elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
        yield from _attributes(value)


def _named_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if not (function.__module__ or "").startswith(("langgraph.", "langchain.", "langchain_core.")):
        yield from inspect.getclosurevars(function).globals.items()
        yield from (("", constant) for constant in function.__code__.co_consts if isinstance(constant, str | tuple))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # an empty cell
            yield name, cell.cell_contents
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            yield name, parameter.default


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    for name in {**getattr(value, "__dict__", {}), **dict.fromkeys(slots)}:
        item = inspect.getattr_static(value, name, None)
        yield name, getattr(value, name, None) if isinstance(item, types.MemberDescriptorType) else item
