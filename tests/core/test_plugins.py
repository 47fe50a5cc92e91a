"""Finding, naming and loading plugins."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

import pytest

from agentlightning import hookspecs
from agentlightning.errors import PluginError
from agentlightning.plugins import KINDS, Plugins
from agentlightning.records import Rollout, Task

Install = Callable[..., Plugins]

PREAMBLE = "from agentlightning.hookspecs import hookimpl\n"


def register(kind: str, **names: str) -> str:
    """The source of a plugin module that registers ``names`` (values are source text)."""
    lines = "".join(f"    register({name!r}, {value})\n" for name, value in names.items())
    return f"{PREAMBLE}@hookimpl\ndef register_{kind}(register):\n{lines}"


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """``install(name=source, …)`` writes one distribution per plugin, as pip lays it out, and finds them."""
    sys.path.insert(0, str(tmp_path))
    before = set(sys.modules)

    def make(**sources: str) -> Plugins:
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
            info = tmp_path / f"{name}_dist-1.5.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.5\n")
            (info / "entry_points.txt").write_text(f"[agentlightning]\n{name} = {name}\n")
        found: list[Distribution] = list(distributions(path=[str(tmp_path)]))
        points: list[EntryPoint] = [point for dist in found for point in dist.entry_points]
        return Plugins(points)

    yield make
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_name_finds_what_a_plugin_registered(install: Install) -> None:
    found = install(length=register("rewards", length="lambda rollout, task: len(task.input)"))
    assert callable(found.find("rewards", "length"))
    (plugin,) = found.installed()
    assert (plugin.name, plugin.distribution, plugin.version) == ("length", "length-dist", "1.5")
    assert plugin.registers == {"rewards": ["length"]}
    assert plugin.error is None


def test_a_target_is_imported_when_first_used(install: Install, tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("def judge(rollout, task): return 1.0\n")
    found = install(lazy=register("rewards", judge="'heavy:judge'"))
    assert "heavy" not in sys.modules
    assert found.find("rewards", "judge").__name__ == "judge"
    assert "heavy" in sys.modules


def test_a_broken_plugin_is_reported_and_breaks_only_itself(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = install(
            bad="try:\n    import no_such_lib\nexcept ImportError as e:\n    raise RuntimeError('no GPU') from e",
            good=register("rewards", length="lambda rollout, task: 1.0"),
        )
    assert callable(found.find("rewards", "length"))
    errors = {plugin.name: plugin.error for plugin in found.installed()}
    assert errors["good"] is None
    assert errors["bad"] is not None
    assert "RuntimeError: no GPU (" in errors["bad"]
    assert "caused by ModuleNotFoundError: No module named 'no_such_lib'" in errors["bad"]
    assert "plugin bad of bad-dist 1.5 does not work" in caplog.text
    with pytest.raises(PluginError, match=r"'lenth' is not installed; did you mean 'length'.*Plugin bad of bad-dist"):
        found.find("rewards", "lenth")


def test_a_plugin_that_fails_half_way_registers_nothing(install: Install) -> None:
    source = register("rewards", half="print") + "    raise OSError('disk')\n"
    found = install(half=source)
    assert found.installed()[0].registers == {}
    with pytest.raises(PluginError, match="OSError: disk"):
        found.find("rewards", "half")


def test_a_hook_that_does_not_exist_is_named_with_the_nearest(install: Install) -> None:
    found = install(typo=register("reward", x="print"))
    assert "there is no hook 'register_reward'; did you mean 'register_rewards'" in str(found.installed()[0].error)


def test_two_plugins_with_one_name_fail_when_it_is_used_and_not_before(install: Install) -> None:
    found = install(one=register("rewards", same="print", first="print"), two=register("rewards", same="print"))
    assert found.find("rewards", "first") is print
    with pytest.raises(PluginError, match=r"registered by one-dist 1\.5 and two-dist 1\.5: uninstall one"):
        found.find("rewards", "same")


def test_a_well_known_name_says_what_to_install() -> None:
    with pytest.raises(PluginError, match=r"'grpo' is not installed: pip install \S+/gateway \S+/policy \S+/grpo"):
        Plugins([]).find("algorithms", "grpo")


def test_a_target_in_place_of_a_name_is_loaded() -> None:
    assert Plugins([]).find("rewards", "operator:is_") is __import__("operator").is_


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("algorithms", "json:dumps", "expected a subclass of Algorithm"),
        ("rewards", "json:__name__", "expected a function or a class"),
        ("rewards", "json:dmups", r"reward 'json:dmups' cannot be loaded: .* did you mean 'dumps'"),
        ("stores", "json:dumps", "store 'json:dumps' is not installed"),
    ],
)
def test_a_wrong_target_is_a_plugin_error(kind: str, name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Plugins([]).find(kind, name)


def test_adapters_come_by_priority_and_a_broken_one_is_left_out(install: Install) -> None:
    source = (
        "from agentlightning.adapter import Adapter\n"
        "class A(Adapter):\n"
        "    name, priority = 'a', {priority}\n"
        "    def accepts(self, agent): return True\n"
        "    async def run(self, agent, input): return input\n"
    )
    found = install(
        low=source.format(priority=-100) + register("adapters", low="A"),
        high=source.format(priority=5) + register("adapters", high="A"),
        lost=register("adapters", lost="'no_such_module:A'"),
    )
    assert [adapter.priority for adapter in found.adapters()] == [5, -100]
    assert found.adapters()[0] is found.adapters()[0]
    assert "no module named 'no_such_module'" in str({p.name: p.error for p in found.installed()}["lost"])


def test_life_cycle_hooks_reach_every_plugin(install: Install) -> None:
    source = PREAMBLE + "seen = []\n@hookimpl\ndef rollout_finished(rollout):\n    seen.append(rollout.id)\n"
    found = install(watch=source)
    rollout = Rollout(id="r1", run_id="run", group_id="g", task_id="t", purpose="train", step=1)
    found.notify("rollout_finished", rollout=rollout, task=Task(id="t", input="?"), spans=[])
    assert sys.modules["watch"].seen == ["r1"]


def test_core_registers_its_own_parts_as_a_plugin() -> None:
    point = EntryPoint("builtin", "agentlightning.builtin", "agentlightning")
    registers = Plugins([point]).installed()[0].registers
    assert registers["adapters"] == ["function"]
    assert "sqlite" in registers["stores"]


def test_commands_are_click_commands_by_name(install: Install) -> None:
    import click

    found = install(tool=register("commands", hello="__import__('click').Command('hello')"))
    assert isinstance(found.working("commands")["hello"], click.Command)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_hook(install: Install, kind: str) -> None:
    found = install(own=register(kind, mine="'json:dumps'"))
    assert found.installed()[0].registers == {kind: ["mine"]}


def test_every_hook_is_that_of_a_kind_or_has_a_caller() -> None:
    """A hook that nobody calls would be a promise to plugin authors that is not kept."""
    folders = [Path(__file__).parents[2] / name for name in ("core", "adapters", "algorithms", "rewards")]
    sources = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    for name, hook in vars(hookspecs).items():
        if hasattr(hook, "agentlightning_spec"):
            assert name.removeprefix("register_") in KINDS or f'notify("{name}"' in sources, name
