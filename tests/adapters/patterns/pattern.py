"""What a pattern is: an agent as its framework's own guides have it built, and what is recorded of one rollout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stub_answers import Answer, Received

QUESTION = "What is 2 + 3?"


@dataclass(frozen=True)
class Pattern:
    """``make`` builds the agent, whose models are at the endpoint that it is given. A model says ``answers``, in order,
    or what a function makes of each request. ``outline`` is what is drawn of the rollout; ``tools`` are the tools in
    it, in order of their beginning: name, id of the call, arguments, result. ``left`` says that the agent leaves a
    stream whose answer goes on."""

    make: Callable[[str], Any]
    answers: Sequence[Answer] | Callable[[Received], Answer]
    outline: list[str]
    output: str
    tools: list[tuple[str, str | None, Any, Any]] = field(default_factory=list)
    input: Any = QUESTION
    left: bool = False
