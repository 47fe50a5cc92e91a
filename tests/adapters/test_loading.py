"""What importing an adapter brings into the process, as long as nobody has imported its framework."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

ADAPTERS = ("openai", "langgraph", "autogen", "crewai", "openai_agents")
FOREIGN = {
    *("openai", "httpx", "httpx2", "pydantic"),
    *("langchain_core", "langgraph", "langsmith"),
    *("autogen_core", "autogen_agentchat"),
    *("crewai", "litellm"),
    *("agents", "mcp"),
}

LOADING = """
import sys
import agentlightning_{name}.plugin as plugin
from importlib import import_module

targets = {{}}
plugin.register_adapters(register=targets.__setitem__)
((name, target),) = targets.items()
module, _, attribute = target.partition(":")
adapter = getattr(import_module(module), attribute)()
adapter.prepare()
if name != "openai":  # the model layer's client is there for all of them
    adapter.install()
accepted = adapter.accepts(object())
adapter.uninstall()
print(name, adapter.name, accepted, *sorted({{loaded.partition(".")[0] for loaded in sys.modules}}))
"""


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_named_and_installed_without_its_framework(name: str) -> None:
    if find_spec(f"agentlightning_{name}") is None:
        pytest.skip(f"agentlightning-{name} not installed")
    ran = subprocess.run([sys.executable, "-c", LOADING.format(name=name)], capture_output=True, text=True, check=True)
    registered, own, accepted, *loaded = ran.stdout.split()
    assert (registered, own, accepted) == (name.replace("_", "-"), name.replace("_", "-"), "False")
    assert FOREIGN.intersection(loaded) == set()
    assert f"agentlightning_{name}" in loaded
