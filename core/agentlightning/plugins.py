"""Finding, naming and loading plugins: entry points of the group ``agentlightning``, held by pluggy."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from agentlightning import hookspecs
from agentlightning.errors import ConfigError, PluginError
from agentlightning.installing import DISTRIBUTION_OF, install_command
from agentlightning.loading import explain, load, nearest
from agentlightning.records import Record

if TYPE_CHECKING:
    from agentlightning.adapter import Adapter

logger = logging.getLogger(__name__)

GROUP = "agentlightning"

KINDS: dict[str, str | None] = {
    "adapters": "agentlightning.adapter:Adapter",
    "algorithms": "agentlightning.algorithm:Algorithm",
    "rewards": None,
    "runners": "agentlightning.runner:Runner",
    "servers": "agentlightning.serving:ModelServer",
    "routers": "agentlightning.model_routing:Router",
    "credit": "agentlightning.credit:Credit",
    "backends": "agentlightning.backend:Backend",
    "stores": None,
    "submitters": None,
    "importers": "agentlightning.importers.base:Importer",
    "commands": None,
}
"""What the hook ``register_<kind>`` registers, and the class that each of the kind is a subclass of; None where any
callable will do. A new kind is a line here and a hook in `agentlightning.hookspecs`."""


class PluginInfo(Record, kw_only=True):
    """One entry point: whose it is, the names it registers by kind, and why it does not work, if it does not."""

    name: str
    distribution: str
    version: str
    registers: dict[str, list[str]] = {}
    error: str | None = None


class Plugins:
    """Every plugin installed, or those of ``points``. Targets given as ``"module:attribute"`` are imported
    when first asked for, and a plugin that does not import breaks only what needs it."""

    def __init__(self, points: Iterable[EntryPoint] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._registered: dict[str, dict[str, list[tuple[PluginInfo, Any]]]] = {kind: {} for kind in KINDS}
        self._adapters: list[Adapter] | None = None
        found = entry_points(group=GROUP) if points is None else points
        self._plugins = [self._add(point) for point in sorted(found, key=lambda point: (point.name, point.value))]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Calls a life-cycle hook: ``notify("run_finished", run=…)``. What an implementation raises is logged, and
        harms neither the run nor what is recorded."""
        try:
            getattr(self._manager.hook, hook)(**arguments)
        except Exception:
            logger.exception("a plugin failed in its hook %s; the run goes on", hook)

    def installed(self) -> list[PluginInfo]:
        """Every plugin found, the broken ones with their error."""
        return list(self._plugins)

    def find(self, kind: str, name: str) -> Any:
        """What is registered under a name, or what ``module:attribute`` names.

        Raises `PluginError`: no such name (with the nearest, or what to install), two owners, or a wrong target.
        """
        what = f"{kind.removesuffix('s')} {name!r}"
        owners = self._registered[kind].get(name, [])
        if len(owners) > 1:
            both = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin, _ in owners)
            raise PluginError(f"{what} is registered by {both}: uninstall one of them")
        target: Any = name
        if owners:
            plugin, target = owners[0]
            what = f"{what} of {plugin.distribution} {plugin.version}"
        elif ":" not in name or kind == "stores":
            raise PluginError(self._missing(kind, name))
        try:
            found = load(target) if isinstance(target, str) else target
        except ConfigError as error:
            raise PluginError(f"{what} cannot be loaded: {error}") from error
        base = KINDS[kind]
        if base is not None and not (isinstance(found, type) and issubclass(found, load(base))):
            raise PluginError(f"{what} is {found!r}: expected a subclass of {base.rpartition(':')[2]}")
        if not callable(found):
            raise PluginError(f"{what} is {found!r}: expected a function or a class")
        return found

    def working(self, kind: str) -> dict[str, Any]:
        """All of a kind by name. One that does not load is left out, with a warning; its plugin's entry in
        `installed` says why."""
        found: dict[str, Any] = {}
        for name, owners in self._registered[kind].items():
            try:
                found[name] = self.find(kind, name)
            except PluginError as error:
                for plugin, _ in owners:
                    plugin.error = str(error)
                logger.warning("%s", error)
        return found

    def adapters(self) -> list[Adapter]:
        """One instance of every adapter that works, in descending priority: the same instances at each call."""
        if self._adapters is None:
            made: list[Adapter] = [adapter() for adapter in self.working("adapters").values()]
            self._adapters = sorted(made, key=lambda adapter: (-adapter.priority, adapter.name))
        return list(self._adapters)

    def _add(self, point: EntryPoint) -> PluginInfo:
        distribution, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "0")
        info = PluginInfo(name=point.name, distribution=distribution, version=version)
        try:
            module = point.load()
            registered = self._registrations(module)
            self._manager.register(module, name=f"{distribution}:{point.name}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may raise anything
            info.error = explain(error)
            logger.warning("plugin %s of %s %s does not work: %s", info.name, distribution, version, info.error)
            return info
        for kind, name, target in registered:
            self._registered[kind].setdefault(name, []).append((info, target))
            info.registers.setdefault(kind, []).append(name)
        return info

    def _registrations(self, module: Any) -> list[tuple[str, str, Any]]:
        """(kind, name, target) of everything that a plugin's module registers."""
        hooks = [name for name in vars(hookspecs) if self._manager.parse_hookspec_opts(hookspecs, name)]
        registered: list[tuple[str, str, Any]] = []
        for hook in dir(module):
            if self._manager.parse_hookimpl_opts(module, hook) is None:
                continue
            if hook not in hooks:
                raise PluginError(f"there is no hook {hook!r}{nearest(hook, hooks)}")
            kind = hook.removeprefix("register_")
            if kind in KINDS:
                getattr(module, hook)(lambda name, target, kind=kind: registered.append((kind, name, target)))
        return registered

    def _missing(self, kind: str, name: str) -> str:
        message = f"{kind.removesuffix('s')} {name!r} is not installed"
        offered = DISTRIBUTION_OF.get(kind, {})
        if name in offered and all(plugin.distribution != offered[name] for plugin in self._plugins):
            message += f": {install_command(offered[name])}"
        else:
            message += nearest(name, self._registered[kind], [*self._registered[kind], *offered])
        broken = [plugin for plugin in self._plugins if plugin.error is not None]
        return message + "".join(
            f". Plugin {one.name} of {one.distribution} does not work: {one.error}" for one in broken
        )


@functools.cache
def plugins() -> Plugins:
    """The plugins installed in this process, found once."""
    return Plugins()
