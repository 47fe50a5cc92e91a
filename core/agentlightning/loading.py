"""Objects by name: ``module:attribute``, as config files and plugins give them."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import pkgutil
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from agentlightning.errors import ConfigError, text_of


def load(target: str) -> Any:
    """The object that ``"package.module:attribute"`` names; the attribute may be dotted.

    Looks in the current directory first, as ``python -m`` does. Raises `ConfigError` that says which part
    failed: no such module, an error inside the module (with its last line), or no such attribute.
    """
    module_name, colon, path = target.partition(":")
    if module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").lstrip("./").replace("/", ".")
        raise ConfigError(f"{target}: expected a module, not a file: write {dotted}:{path or 'attribute'}")
    if not colon or not all(part.isidentifier() for part in [*module_name.split("."), *path.split(".")]):
        raise ConfigError(f"{target!r}: expected module:attribute, as in my_package.agent:graph")
    found: Any = _import(module_name, target)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            owner = f"module {module_name!r}" if isinstance(found, ModuleType) else repr(type(found).__name__)
            names = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigError(f"{target}: {owner} has no {name!r}{nearest(name, names)}") from None
    return found


def load_function(target: str, *arguments: str) -> Callable[..., Any]:
    """The function that ``"module:attribute"`` names, to be called with ``arguments``, each in a few words.

    Raises `ConfigError` where it does not load, is no function, is asynchronous, or cannot be called so.
    """
    function = load(target)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ConfigError(f"{target} is {reprlib.repr(function)}: expected a function that is not asynchronous")
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:
        pass  # one of C, which has no signature
    except TypeError as error:
        raise ConfigError(f"{target} is called with {', '.join(arguments)}: {error}") from None
    called: Callable[..., Any] = function
    return called


def is_call(target: str) -> bool:
    """Whether ``"module:attribute()"`` is to be called: it names what makes the object, not the object."""
    return target.endswith("()")


def make(target: str) -> Any:
    """What the function or class that ``"module:attribute()"`` names makes, called once without arguments.

    Raises `ConfigError` where it does not load, cannot be called so, or raises.
    """
    maker = load(target.removesuffix("()"))
    try:
        inspect.signature(maker).bind()
    except ValueError:
        pass  # one of C, which has no signature
    except TypeError as error:
        raise ConfigError(f"{target}: it cannot be called without arguments: {error}") from None
    try:
        made = maker()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{target}: it raised {explain(error)}") from error
    if inspect.iscoroutine(made):
        made.close()
        raise ConfigError(
            f"{target} is asynchronous: name a function that gives asyncio.run({target.rpartition(':')[2]})"
        )
    return made


def explain(error: BaseException) -> str:
    """An exception in one line: its type, message, and where it was raised; then those that caused it."""
    parts: list[str] = []
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        text = str(link.msg) if isinstance(link, SyntaxError) else text_of(link).strip()
        parts.append(f"{type(link).__name__}{': ' if text else ''}{text}{_raised_at(link)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return ", caused by ".join(parts)


def nearest(name: str, names: Iterable[str], candidates: Iterable[str] | None = None) -> str:
    """``"; did you mean 'x'?"``, else what there is, for the end of an error message.

    ``candidates`` are the names to guess from, where they are more than those that are there.
    """
    known = sorted(set(names))
    close = difflib.get_close_matches(name, known if candidates is None else set(candidates), n=3)
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; there is: {', '.join(known[:20])}" if known else ""


def _import(name: str, target: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{target}: no module named {error.name!r} in {here} or among the installed packages"
                f"{_nearest_module(error.name)}"
            ) from None
        raise ConfigError(f"{target}: module {name!r} does not import: {explain(error)}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{target}: module {name!r} does not import: {explain(error)}") from error


def _nearest_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else [os.getcwd()]
    close = difflib.get_close_matches(last, [module.name for module in pkgutil.iter_modules(path)], n=1)
    return f"; did you mean {f'{parent}.{close[0]}' if parent else close[0]!r}?" if close else ""


def _raised_at(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno}: {(error.text or '').strip()})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and frame.filename not in (importlib.__file__, __file__)
    ]
    return f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
