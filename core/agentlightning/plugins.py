"""Finding, naming and loading plugins: entry points of the group ``agentlightning``, held by pluggy."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from agentlightning import hookspecs
from agentlightning.errors import ConfigError, PluginError
from agentlightning.installing import install_command
from agentlightning.loading import explain, load, nearest
from agentlightning.records import Record

if TYPE_CHECKING:
    from agentlightning.adapter import Adapter
    from agentlightning.algorithm import Algorithm
    from agentlightning.store.base import Store

logger = logging.getLogger(__name__)

GROUP = "agentlightning"

KINDS = {
    "adapters": "adapter",
    "algorithms": "algorithm",
    "rewards": "reward",
    "stores": "store",
    "commands": "command",
}

WELL_KNOWN = {
    "algorithms": {"grpo": "agentlightning-grpo", "sft": "agentlightning-sft", "selection": "agentlightning-selection"},
    "rewards": dict.fromkeys(("exact_match", "numeric_match", "regex", "json_schema"), "agentlightning-rewards"),
}
"""Which distribution to install for a name that is missing."""


class PluginInfo(Record, kw_only=True):
    """One entry point: whose it is, the names it registers by kind, and why it does not work, if it does not."""

    name: str
    module: str
    distribution: str
    version: str
    registers: dict[str, list[str]] = {}
    error: str | None = None


class Registration(Record, kw_only=True):
    """A name's target, and the plugin that registered it."""

    target: Any
    plugin: PluginInfo


class Plugins:
    """Every plugin installed, or those of ``points``. Targets given as ``"module:attribute"`` are imported
    when first asked for, and a plugin that does not import breaks only what needs it."""

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._registry: dict[str, dict[str, list[Registration]]] = {kind: {} for kind in KINDS}
        self._loaded: dict[str, Any] = {}
        self._adapters: list[Adapter] | None = None
        found = entry_points(group=GROUP) if points is None else points
        self._plugins = [self._add(point) for point in sorted(found, key=_identity)]

    @property
    def hook(self) -> pluggy.HookRelay:
        """Caller of the life-cycle hooks: ``plugins().hook.rollout_finished(rollout=…)``."""
        return self._manager.hook

    def notify(self, hook: str, **arguments: Any) -> None:
        """Calls a life-cycle hook. What an implementation raises is logged, and harms neither the run nor
        what is recorded."""
        try:
            getattr(self.hook, hook)(**arguments)
        except Exception:
            logger.exception("a plugin failed in its hook %s; the run goes on", hook)

    def installed(self) -> list[PluginInfo]:
        """Every plugin found, the broken ones with their error."""
        return list(self._plugins)

    def algorithm(self, name: str) -> type[Algorithm]:
        """The algorithm of a name, or of ``module:attribute``. Raises `PluginError`."""
        from agentlightning.algorithm import Algorithm

        found: type[Algorithm] = self._class("algorithms", name, Algorithm)
        return found

    def reward(self, name: str) -> Callable[..., Any]:
        """The reward function, or class of one, of a name or of ``module:attribute``. Raises `PluginError`."""
        found: Callable[..., Any] = self._callable("rewards", name)
        return found

    def store(self, scheme: str) -> Callable[[str], Store]:
        """What opens a store of a URL scheme. Raises `PluginError`."""
        found: Callable[[str], Store] = self._callable("stores", scheme)
        return found

    def adapters(self) -> list[Adapter]:
        """One instance of every adapter, in descending priority: the same instances at each call.

        An adapter that does not load is left out, with a warning; its plugin's entry in `installed` says why.
        """
        if self._adapters is None:
            self._adapters = [made for name in self._registry["adapters"] if (made := self._adapter(name)) is not None]
            self._adapters.sort(key=lambda adapter: (-adapter.priority, adapter.name))
        return list(self._adapters)

    def commands(self) -> dict[str, Any]:
        """The commands (`click.Command`) that plugins add to ``agl``, by name.

        One that does not load is left out, with a warning."""
        return {
            name: command
            for name in self._registry["commands"]
            if (command := self._unless_broken("commands", name)) is not None
        }

    def _add(self, point: EntryPoint) -> PluginInfo:
        distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
        info = PluginInfo(name=point.name, module=point.value, distribution=distribution, version=version)
        module = None
        try:
            module = point.load()
            self._manager.register(module, name=f"{distribution}:{point.name}")
            self._check_hooks(module)
            for kind in KINDS:
                self._collect(kind, module, info)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may raise anything
            info.error = explain(error)
            self._forget(info, module)
            logger.warning("plugin %s of %s %s does not work: %s", info.name, distribution, version, info.error)
        return info

    def _check_hooks(self, module: ModuleType) -> None:
        for caller in self._manager.get_hookcallers(module) or ():
            if not caller.has_spec():
                known = [name for name in vars(hookspecs) if self._manager.parse_hookspec_opts(hookspecs, name)]
                raise PluginError(f"there is no hook {caller.name!r}{nearest(caller.name, known)}")

    def _collect(self, kind: str, module: ModuleType, info: PluginInfo) -> None:
        def register(name: str, target: Any) -> None:
            self._registry[kind].setdefault(name, []).append(Registration(target=target, plugin=info))
            info.registers.setdefault(kind, []).append(name)

        for implementation in getattr(self._manager.hook, f"register_{kind}").get_hookimpls():
            if implementation.plugin is module:
                implementation.function(register)

    def _forget(self, info: PluginInfo, module: ModuleType | None) -> None:
        for names in self._registry.values():
            for name, entries in list(names.items()):
                names[name] = [entry for entry in entries if entry.plugin is not info]
                if not names[name]:
                    del names[name]
        info.registers = {}
        if module is not None and self._manager.is_registered(module):
            self._manager.unregister(module)

    def _class(self, kind: str, name: str, base: type) -> Any:
        target = self._target(kind, name)
        if not (isinstance(target, type) and issubclass(target, base)):
            raise PluginError(f"{KINDS[kind]} {name!r} is {target!r}: expected a subclass of {base.__qualname__}")
        return target

    def _callable(self, kind: str, name: str) -> Any:
        target = self._target(kind, name)
        if not callable(target):
            raise PluginError(f"{KINDS[kind]} {name!r} is {target!r}: expected a function or a class")
        return target

    def _target(self, kind: str, name: str) -> Any:
        entries = self._registry[kind].get(name, [])
        if len(entries) > 1:
            owners = " and ".join(f"{entry.plugin.distribution} {entry.plugin.version}" for entry in entries)
            raise PluginError(f"{KINDS[kind]} {name!r} is registered by {owners}: uninstall one of them")
        if not entries:
            if ":" in name and kind in ("algorithms", "rewards"):
                return self._load(name, f"{KINDS[kind]} {name!r}")
            raise PluginError(self._missing(kind, name))
        plugin = entries[0].plugin
        target = entries[0].target
        if not isinstance(target, str):
            return target
        return self._load(target, f"{KINDS[kind]} {name!r} of {plugin.distribution} {plugin.version}")

    def _load(self, target: str, what: str) -> Any:
        if target not in self._loaded:
            try:
                self._loaded[target] = load(target)
            except ConfigError as error:
                raise PluginError(f"{what} cannot be loaded: {error}") from error
        return self._loaded[target]

    def _missing(self, kind: str, name: str) -> str:
        message = f"{KINDS[kind]} {name!r} is not installed"
        offered = WELL_KNOWN.get(kind, {})
        present = any(plugin.distribution == offered.get(name) for plugin in self._plugins)
        if name in offered and not present:
            message += f": {install_command(offered[name])}"
        else:
            message += nearest(name, self._registry[kind], [*self._registry[kind], *offered])
        broken = [plugin for plugin in self._plugins if plugin.error is not None]
        return message + "".join(f". Plugin {it.name} of {it.distribution} does not work: {it.error}" for it in broken)

    def _adapter(self, name: str) -> Adapter | None:
        from agentlightning.adapter import Adapter

        kind = self._unless_broken("adapters", name)
        if kind is None:
            return None
        if not (isinstance(kind, type) and issubclass(kind, Adapter)):
            raise PluginError(f"adapter {name!r} is {kind!r}: expected a subclass of Adapter")
        made: Adapter = kind()
        return made

    def _unless_broken(self, kind: str, name: str) -> Any:
        try:
            return self._target(kind, name)
        except PluginError as error:
            for entry in self._registry[kind][name]:
                entry.plugin.error = str(error)
            logger.warning("%s", error)
            return None


def _identity(point: EntryPoint) -> tuple[str, str, str]:
    return (point.name, point.value, point.dist.name if point.dist else "")


@functools.cache
def plugins() -> Plugins:
    """The plugins installed in this process, found once."""
    return Plugins()
