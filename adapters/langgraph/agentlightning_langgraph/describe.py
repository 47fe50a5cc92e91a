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
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import SystemMessage
from langchain_core.prompts import SystemMessagePromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

MAX_OBJECTS = 5000
PROMPT_NAME = re.compile(r"prompt|instruction|system", re.IGNORECASE)
MODEL_NAMES = ("model_name", "model", "model_id", "deployment_name")


@dataclass
class Found:
    """What an agent holds, each thing once, in the order of the walk."""

    models: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


def inspect_agent(agent: Any) -> Found:
    """Looks at an agent without running it."""
    found = Found()
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", agent)]
    while waiting and len(seen) < MAX_OBJECTS:
        name, value = waiting.pop(0)
        if isinstance(value, str):
            if PROMPT_NAME.search(name) and " " in value:
                _add(found.prompts, value)
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        _note(found, value)
        waiting.extend(_parts(value))
    return found


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _note(found: Found, value: Any) -> None:
    if isinstance(value, BaseTool):
        _add(found.tools, value.name)
    elif isinstance(value, SystemMessage):
        _add(found.prompts, str(value.content))
    elif isinstance(value, SystemMessagePromptTemplate):
        _add(found.prompts, str(getattr(value.prompt, "template", value.prompt)))
    elif isinstance(value, BaseLanguageModel):
        names = (getattr(value, name, None) for name in MODEL_NAMES)
        _add(found.models, next((name for name in names if isinstance(name, str)), type(value).__name__))


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value holds that is worth looking at, by name."""
    if isinstance(value, BaseLanguageModel | BaseTool):
        return
    if isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from (("", item) for item in value)
    elif isinstance(value, functools.partial):
        yield from (("", item) for item in (value.func, value.args, value.keywords))
    elif isinstance(value, types.MethodType):
        yield from (("", value.__func__), ("", value.__self__))
    elif isinstance(value, types.FunctionType):
        yield from _named_by(value)
    elif isinstance(value, Runnable) or _is_of_langgraph(value) or _is_of_the_user(value):
        yield from _attributes(value)


def _named_by(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    if (function.__module__ or "").startswith(("langgraph.", "langchain_core.")):
        variables: dict[str, Any] = {}
    else:
        variables = dict(inspect.getclosurevars(function).globals)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        try:
            variables[name] = cell.cell_contents
        except ValueError:
            continue
    defaults = inspect.signature(function).parameters.items()
    variables.update((name, given.default) for name, given in defaults if given.default is not given.empty)
    yield from variables.items()


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    slots = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
    for name in {**getattr(value, "__dict__", {}), **dict.fromkeys(slots)}:
        item = inspect.getattr_static(value, name, None)
        yield name, getattr(value, name, None) if isinstance(item, types.MemberDescriptorType) else item


def _is_of_langgraph(value: Any) -> bool:
    return type(value).__module__.startswith(("langgraph.", "langchain_core.", "langchain."))


def _is_of_the_user(value: Any) -> bool:
    """An object with methods as nodes: looked into when nothing but a plain class made it."""
    return type(type(value)) is type and hasattr(value, "__dict__") and not isinstance(value, types.ModuleType | type)
