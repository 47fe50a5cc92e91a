"""Which of several models answers a rollout's calls, where a `ModelRouter` decides by what the user said first.

What decides is a plugin (`agentlightning.hookspecs.register_routers`) that has learned something, kept in a folder.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agentlightning.errors import PolicyError
from agentlightning.plugins import plugins
from agentlightning.recording import Recorder
from agentlightning.records import ModelChoice, ModelRouter
from agentlightning.system_prompts import text_of

KEPT = 8
"""How many loaded routers a process keeps: each may hold an embedding model and what it compares with."""


class Router(ABC):
    """Base of every router: made from what it has learned, asked by many threads at once."""

    def __init__(self, folder: Path | None, choices: int) -> None:
        """Loads what it has learned from ``folder``, to choose among so many models. Raises `PolicyError`."""
        self.folder = folder
        self.choices = choices

    @abstractmethod
    def choose(self, text: str) -> int:
        """The place in ``choices`` of the model that answers a conversation in which the user began with ``text``."""


def load_router(resource: ModelRouter) -> Router:
    """The router of a resource, loaded once in this process.

    Raises `PluginError` where it is not installed, and `PolicyError` where what it has learned is not there, is not
    what the resource was published with, or cannot be read.
    """
    digest = resource.digest
    with _lock:
        router = _loaded.get(digest)
        if router is None:
            kind: type[Router] = plugins().find("routers", resource.router)
            router = _loaded[digest] = kind(_folder_of(resource), len(resource.choices))
            while len(_loaded) > KEPT:
                _loaded.popitem(last=False)
        _loaded.move_to_end(digest)
        return router


def choice_for(resource: ModelRouter, text: str) -> ModelChoice:
    """The model that answers a conversation which begins with ``text``. Raises as `load_router` does."""
    place = load_router(resource).choose(text)
    if not 0 <= place < len(resource.choices):
        raise PolicyError(
            f"{resource.name}: the router {resource.router!r} chose number {place}, and there are "
            f"{len(resource.choices)} models"
        )
    return resource.choices[place]


def choice_of_rollout(
    recorder: Recorder, resource: ModelRouter, body: Mapping[str, Any], operation: str
) -> ModelChoice:
    """The model for a call of a rollout: its first call decides, and those that follow go to the same one."""
    decided: dict[str, ModelChoice] = recorder.adapter_state.setdefault("model_router", {})
    if resource.name not in decided:
        decided.setdefault(resource.name, choice_for(resource, request_text(body, operation)))
    return decided[resource.name]


def request_text(body: Mapping[str, Any], operation: str) -> str:
    """What the user says first in a request to the OpenAI API; "" where there is no text.

    ``operation`` is ``chat``, ``responses`` or ``text_completion``.
    """
    if operation == "text_completion":
        prompt = body.get("prompt")
        first = prompt[0] if isinstance(prompt, list) and prompt else prompt
        return first if isinstance(first, str) else ""
    messages = body.get("messages" if operation == "chat" else "input")
    return messages if isinstance(messages, str) else first_user_text(messages or ())


def first_user_text(messages: Iterable[Any]) -> str:
    """The text of the first message of a user; "" where there is none."""
    for message in messages:
        plain = message if isinstance(message, Mapping) else {}
        if plain.get("role") == "user":
            return text_of(plain.get("content")) or ""
    return ""


def digest_of_folder(folder: Path) -> str:
    """16 hexadecimal digits, the same for the same files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{len(content)}\x1f".encode())
        digest.update(content)
    return digest.hexdigest()


def _folder_of(resource: ModelRouter) -> Path | None:
    if resource.path is None:
        return None
    folder = Path(resource.path)
    if not folder.is_dir():
        raise PolicyError(
            f"{resource.name}: there is no folder {folder}, which holds what the router {resource.router!r} has "
            "learned; it is in the folder of the run that published it: copy it to that place on this machine"
        )
    if resource.learned is not None and digest_of_folder(folder) != resource.learned:
        raise PolicyError(
            f"{resource.name}: {folder} is not what was published, its files were changed since; "
            "run the selection again, or put them back"
        )
    return folder


_loaded: OrderedDict[str, Router] = OrderedDict()
_lock = threading.Lock()
