"""A rollout as a tree for the terminal: what happened, in its order and place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.text import Text
from rich.tree import Tree

from agentlightning import semconv
from agentlightning.formatting import format_duration
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task

if TYPE_CHECKING:
    from rich.console import RenderableType

KIND_STYLES = {
    "llm": "bold blue",
    "tool": "bold magenta",
    "agent": "bold",
    "retrieval": "bold cyan",
    "handoff": "bold yellow",
    "reward": "bold green",
    "annotation": "bold white",
}
ROLE_STYLES = {"system": "yellow", "user": "green", "assistant": "blue", "tool": "magenta"}
MAX_CHARACTERS = 2000
"""Characters of a text that are shown; the rest is counted."""


def rollout_tree(rollout: Rollout, spans: Sequence[Span], *, tokens: bool = False) -> Tree:
    """The spans of a rollout's attempt under one another, with what was said, called, given and what failed.

    Of a model call's messages only those are shown that no earlier call has had. ``tokens`` shows token ids.
    """
    tree = Tree(Text.assemble(("rollout ", "bold"), rollout.id), guide_style="dim")
    branches: dict[str, Tree] = {}
    calls: list[list[dict[str, Any]]] = []
    agents: dict[str, str | None] = {}
    for span in sorted(spans, key=lambda span: span.index):
        above = branches.get(span.parent_id or "", tree)
        acted = agents.get(span.parent_id or "")
        agents[span.id] = span.agent
        branch = branches[span.id] = above.add(_heading(span, acted))
        for line in _details(span, calls, tokens=tokens):
            branch.add(line)
    return tree


def rollout_summary(rollout: Rollout, task: Task | None) -> list[tuple[str, RenderableType]]:
    """What a rollout was, by name: task, status, rewards, resources, output, failures."""
    lines: list[tuple[str, RenderableType]] = [
        ("run", Text(rollout.run_id)),
        ("part of", Text(f"{rollout.collection}, sample {rollout.sample}, attempt {rollout.attempt}")),
        ("task", Text(rollout.task_id)),
    ]
    if task is not None:
        lines.append(("input", format_value(task.input)))
        if task.expected is not None:
            lines.append(("expected", format_value(task.expected)))
    seconds = rollout.ended_at - rollout.started_at if rollout.ended_at and rollout.started_at else None
    lasted = f", {format_duration(seconds)}" if seconds is not None else ""
    lines.append(("status", Text(f"{rollout.status}{lasted}", style="red" if rollout.status == "failed" else "")))
    lines.append(("output", format_value(rollout.output)))
    if rollout.rewards:
        lines.append(("outcome", _sum(rollout.outcome)))
        if rollout.total_reward != rollout.outcome:
            lines.append(("total reward", _sum(rollout.total_reward)))
        lines += [("", _reward_line(reward)) for reward in rollout.rewards]
    if rollout.resources:
        lines.append(("resources", Text(", ".join(f"{name} {digest}" for name, digest in rollout.resources.items()))))
    if rollout.failure is not None:
        lines.append(("failure", failure_line(rollout.failure)))
    lines += [("tried before", failure_line(failure)) for failure in rollout.failed_attempts]
    return lines


def format_value(value: Any, limit: int = MAX_CHARACTERS) -> Text:
    """A value as text that a terminal can be trusted with: text as it is, the rest as JSON, control characters
    made visible, and no longer than ``limit``."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    safe = "".join(_visible(character) for character in text[:limit])
    rest = len(text) - limit
    return Text(safe if rest <= 0 else f"{safe} … {rest} characters more")


def failure_line(failure: Failure) -> Text:
    """``tool_error (agent): division by zero``."""
    return Text.assemble((f"{failure.type} ({failure.fault})", "bold red"), ": ", format_value(failure.message))


def _visible(character: str) -> str:
    if character in "\n\t" or ord(character) >= 0xA0 or 0x20 <= ord(character) < 0x7F:
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "�"


def _heading(span: Span, above: str | None) -> Text:
    """``above`` is the agent of the span that this one hangs under."""
    what = format_value(span.name) if span.reward is None else _reward_line(span.reward)
    heading = Text.assemble((span.kind, KIND_STYLES[span.kind]), " ", what)
    structure = span.attributes.get(semconv.STRUCTURE)
    notes = [str(structure)] if structure else []
    if span.agent is not None and span.agent not in (span.name, above):
        notes.append(f"agent {span.agent}")
    if span.attributes.get(semconv.REDIRECTED):
        notes.append("redirected")
    if span.attributes.get(semconv.INTERRUPTED):
        notes.append("interrupted")
    if span.ended_at is not None and span.kind not in ("reward", "annotation"):
        notes.append(format_duration(max(span.ended_at - span.started_at, 0.0)))
    if span.failure is not None:
        heading.append(" ✗", "bold red")
    return heading.append(f"  {', '.join(notes)}" if notes else "", "dim")


def _details(span: Span, calls: list[list[dict[str, Any]]], *, tokens: bool) -> Iterable[RenderableType]:
    if span.generation is not None:
        yield from _conversation(span.generation, calls)
        yield _token_line(span.generation)
        if tokens:
            yield from _token_ids(span.generation)
    for name, label in (
        (semconv.TOOL_CALL_ARGUMENTS, "arguments"),
        (semconv.TOOL_CALL_RESULT, "result"),
        (semconv.RETRIEVAL_QUERY, "query"),
        (semconv.RETRIEVAL_DOCUMENTS, "documents"),
    ):
        if name in span.attributes:
            yield _labelled(label, format_value(span.attributes[name]))
    for name, value in span.attributes.items():
        if not name.startswith(("gen_ai.", "agentlightning.", "error.", "http.")):
            yield _labelled(name, format_value(value))
    if span.failure is not None:
        yield failure_line(span.failure)


def _conversation(generation: Generation, calls: list[list[dict[str, Any]]]) -> Iterable[RenderableType]:
    known = max((_shared(earlier, generation.messages) for earlier in calls), default=0)
    if known:
        yield Text(f"… {known} message{'s' if known > 1 else ''} as before", style="dim")
    for message in generation.messages[known:]:
        yield _message(message)
    if generation.response is not None:
        yield _message({"role": "assistant", **generation.response}, mark="→ ")
    answer = [{"role": "assistant", **generation.response}] if generation.response is not None else []
    calls.append([*generation.messages, *answer])


def _shared(earlier: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]]) -> int:
    """How many messages two calls begin with in common; an answer that comes back may have lost empty fields."""
    count = 0
    for one, other in zip(earlier, messages, strict=False):
        if {key: value for key, value in one.items() if value} != {key: value for key, value in other.items() if value}:
            break
        count += 1
    return count


def _message(message: Mapping[str, Any], mark: str = "") -> Text:
    role = str(message.get("role", "?"))
    line = Text.assemble((f"{mark}{role}", ROLE_STYLES.get(role, "white")), "  ")
    content = message.get("content")
    if content:
        line.append(format_value(content))
    for call in message.get("tool_calls") or []:
        function = call.get("function", {})
        line.append("\n" if content else "").append("calls ", "magenta")
        line.append(format_value(function.get("name", "?"))).append("(").append(
            format_value(function.get("arguments", ""))
        )
        line.append(")")
    return line


def _token_line(generation: Generation) -> Text:
    usage = generation.usage
    read = _length(generation.prompt_ids, usage.input_tokens if usage is not None else None)
    wrote = _length(generation.response_ids, usage.output_tokens if usage is not None else None)
    notes = [f"{read} → {wrote} tokens ({generation.provenance})"]
    if generation.policy is not None:
        notes.append(f"{generation.policy} v{generation.policy_version}")
    elif generation.model is not None:
        notes.append(generation.model)
    if generation.logprobs is not None and len(generation.logprobs):
        mean = float(np.mean(generation.logprobs))
        notes.append(f"mean logprob {mean:.3f} at temperature {generation.temperature:g}")
    if generation.finish_reason is not None:
        notes.append(f"finished: {generation.finish_reason}")
    return Text(", ".join(notes), style="dim")


def _length(ids: np.ndarray | None, counted: int | None) -> str:
    return str(len(ids)) if ids is not None else "?" if counted is None else str(counted)


def _token_ids(generation: Generation) -> Iterable[RenderableType]:
    for label, ids in (("prompt ids", generation.prompt_ids), ("response ids", generation.response_ids)):
        if ids is not None:
            yield _labelled(label, Text(" ".join(map(str, ids.tolist())), style="dim"))


def _sum(value: float | None) -> Text:
    return Text("cannot be told", style="bold yellow") if value is None else Text(f"{value:g}", style="bold green")


def _reward_line(reward: Reward) -> Text:
    value = "cannot be told" if reward.value is None else f"{reward.value:g}"
    line = Text.assemble(format_value(reward.name), " ", (value, "green" if reward.value is not None else "yellow"))
    if reward.weight != 1.0:
        line.append(f" × {reward.weight:g}")
    if reward.step:
        line.append("  of a step", "dim")
    if reward.reason is not None:
        line.append("  ", "dim").append(format_value(reward.reason))
    return line


def _labelled(label: str, value: Text) -> Text:
    return Text.assemble((f"{label}  ", "dim"), value)
