"""The command that installs a distribution of this project.

From its checkout: on the public index these names belong to nobody, or to somebody else.
"""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

FOLDERS = {
    "agentlightning-openai": ("adapters/openai",),
    "agentlightning-langgraph": ("adapters/openai", "adapters/langgraph"),
    "agentlightning-autogen": ("adapters/openai", "adapters/autogen"),
    "agentlightning-crewai": ("adapters/openai", "adapters/crewai"),
    "agentlightning-openai-agents": ("adapters/openai", "adapters/openai-agents"),
    "agentlightning-otel": ("adapters/otel",),
    "agentlightning-import": ("adapters/import",),
    "agentlightning-server": ("adapters/openai", "adapters/server"),
    "agentlightning-client": ("adapters/client",),
    "agentlightning-policy": ("adapters/gateway", "algorithms/policy"),
    "agentlightning-grpo": ("adapters/gateway", "algorithms/policy", "algorithms/grpo"),
    "agentlightning-sft": ("adapters/gateway", "algorithms/policy", "algorithms/sft"),
    "agentlightning-selection": ("adapters/openai", "algorithms/selection"),
    "agentlightning-prompt": ("adapters/openai", "algorithms/prompt"),
    "agentlightning-credit": ("algorithms/credit",),
    "agentlightning-vllm": ("adapters/gateway", "algorithms/policy", "algorithms/vllm"),
    "agentlightning-rewards": ("rewards/standard",),
    "agentlightning-intermediate": ("rewards/intermediate",),
    "agentlightning-judge": ("adapters/openai", "rewards/judge"),
}
"""The folders in the checkout: of the distribution, and before it those that it needs."""

ADAPTER_OF = {
    "langgraph": "agentlightning-langgraph",
    "langchain": "agentlightning-langgraph",
    "langchain_core": "agentlightning-langgraph",
    "agents": "agentlightning-openai-agents",
    "crewai": "agentlightning-crewai",
    "autogen_agentchat": "agentlightning-autogen",
    "autogen_core": "agentlightning-autogen",
}
"""Which distribution runs the objects of a framework, by the first part of their type's module."""

DISTRIBUTION_OF = {
    "algorithms": {
        "grpo": "agentlightning-grpo",
        "sft": "agentlightning-sft",
        "selection": "agentlightning-selection",
        "few_shot": "agentlightning-prompt",
        "gepa": "agentlightning-prompt",
        "apo": "agentlightning-prompt",
    },
    "backends": {"torch": "agentlightning-policy", "vllm": "agentlightning-vllm"},
    "credit": dict.fromkeys(
        ("discounted", "gigpo", "hgpo", "gagpo", "mt_grpo", "per_agent", "tree", "replay"), "agentlightning-credit"
    ),
    "rewards": {
        **dict.fromkeys(("exact_match", "numeric_match", "regex", "json_schema"), "agentlightning-rewards"),
        "intermediate": "agentlightning-intermediate",
        **dict.fromkeys(("judge", "feedback"), "agentlightning-judge"),
    },
    "runners": dict.fromkeys(("clients", "processes"), "agentlightning-client"),
    "servers": {"torch": "agentlightning-policy", "forwarding": "agentlightning-selection"},
    "importers": {
        "otlp": "agentlightning-otel",
        **dict.fromkeys(("langfuse", "langsmith", "openai"), "agentlightning-import"),
    },
    "routers": {"contextual": "agentlightning-selection"},
    "stores": dict.fromkeys(("http", "https"), "agentlightning-server"),
    "submitters": dict.fromkeys(("http", "https"), "agentlightning-server"),
}
"""Which distribution to install for a name that is missing, by kind of plugin."""


def install_command(name: str) -> str:
    """The command that installs the distribution ``name`` with what it needs of this project: from where this one was
    installed, else from a checkout wherever that is."""
    folders = FOLDERS[name]
    origin = _origin()
    if "vcs_info" in origin:
        source = f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
        return f"pip install {' '.join(shlex.quote(f'{source}#subdirectory={folder}') for folder in folders)}"
    root = _checkout(origin)
    if root is not None and all((root / folder).is_dir() for folder in folders):
        return f"pip install {' '.join(shlex.quote(str(root / folder)) for folder in folders)}"
    return f"pip install {' '.join(f'./{folder}' for folder in folders)} (in the checkout of Agent Lightning)"


def _origin() -> dict[str, Any]:
    """Where this distribution was installed from (PEP 610); empty where that was not a folder or a repository."""
    try:
        text = distribution("agentlightning").read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def _checkout(origin: dict[str, Any]) -> Path | None:
    url = urlparse(origin.get("url", ""))
    if url.scheme != "file":
        return None
    return Path(url2pathname(url.path)).parent
