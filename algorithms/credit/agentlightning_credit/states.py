"""States: when two calls start from the same one. A state is a key, and keys are equal or they are not: nothing is
judged by likeness, so nothing depends on the order of rollouts."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec
import numpy as np

from agentlightning import semconv
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.loading import explain, load_function
from agentlightning.records import Span
from agentlightning.training_rows import RolloutRows
from agentlightning_credit.spans import call_spans, generation_of

StateOf = Callable[[RolloutRows], list[Hashable]]
"""The state in which each call of a rollout was made, (T,)."""

AT = "algorithm.credit.state"
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def load_state(choice: str) -> StateOf:
    """What the option ``state`` names. Raises `ConfigError` for what is none, or cannot be called with a span and the
    spans of its rollout."""
    if choice in _STATES:
        return _STATES[choice]
    if ":" not in choice:
        raise ConfigError(f"{AT}: expected {', '.join(_STATES)} or module:function, got {choice!r}")
    try:
        function = load_function(choice, "an llm span", "the rollout's spans")
    except ConfigError as error:
        raise ConfigError(f"{AT}: {error}") from error
    return functools.partial(_by_function, function, choice)


def digest_of(*parts: np.ndarray) -> bytes:
    """16 bytes that are the same for the same token ids in the same parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(part, np.int32).tobytes())
    return digest.digest()


def _by_prompt(member: RolloutRows) -> list[Hashable]:
    return [digest_of(row.token_ids[: call.start]) for row, call in member.transitions]


def _by_observation(member: RolloutRows) -> list[Hashable]:
    return [_observation(span) for span in call_spans(member)]


def _by_node(member: RolloutRows) -> list[Hashable]:
    by_id = {span.id: span for span in member.spans}
    return [(_node(span, by_id), _observation(span)) for span in call_spans(member)]


def _by_function(function: Callable[[Span, Sequence[Span]], Any], name: str, member: RolloutRows) -> list[Hashable]:
    found: list[Hashable] = []
    for place, span in enumerate(call_spans(member)):
        try:
            state = function(span, member.spans)
            hash(state)
        except Exception as error:
            raise AlgorithmError(
                f"{AT}: {name} failed for the state of call {place} of rollout {member.rollout.id}: {explain(error)}"
            ) from error
        found.append(state)
    return found


_STATES: dict[str, StateOf] = {"prompt": _by_prompt, "observation": _by_observation, "node": _by_node}


def _observation(span: Span) -> bytes:
    """What came after the last thing that an assistant said, without the ids of tool calls: they are new in each
    rollout. The last message is always part of it: an agent may end a prompt with what it has the model go on with."""
    messages = generation_of(span).messages
    said = [place for place, message in enumerate(messages[:-1]) if message.get("role") == "assistant"]
    seen = messages[said[-1] + 1 :] if said else messages
    return _encoder.encode([[message.get(name) for name in ("role", "name", "content")] for message in seen])


def _node(span: Span, by_id: dict[str, Span]) -> tuple[str | None, ...]:
    """The names of the nodes and agents that a call was made in, the outermost first; where its framework tells
    neither, of whatever it was made in."""
    above: dict[str, Span] = {}
    parent = by_id.get(span.parent_id or "")
    while parent is not None and parent.id not in above:
        above[parent.id] = parent
        parent = by_id.get(parent.parent_id or "")
    agents = [one for one in reversed(above.values()) if one.kind == "agent"]
    nodes = [one for one in agents if one.attributes.get(semconv.STRUCTURE) in ("node", "agent")]
    return tuple(one.name for one in nodes or agents) or (span.agent,)
