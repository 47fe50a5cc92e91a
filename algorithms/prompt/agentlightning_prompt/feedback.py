"""What a rollout has to say about one of its prompts, for a model that is to write a better one. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.answers import output_text
from agentlightning.causes import explain
from agentlightning.records import Reward, Span
from agentlightning.system_prompts import SYSTEM_ROLES, text_of
from agentlightning_prompt.roles import Role
from agentlightning_prompt.trials import Trial

MAX_CHARACTERS = 2000
"""Of one message, answer or reason; a longer one is cut in its middle."""


def feedback(trial: Trial, spans: Sequence[Span], role: Role, text: str, *, show_expected: bool) -> dict[str, Any]:
    """One example for a model that reflects, in the shape that GEPA recommends: ``Inputs``, ``Generated Outputs`` and
    ``Feedback``.

    It has the calls that ``role`` made with ``text`` as its prompt: the messages, tools that were called and what they
    gave. Then what the rollout was worth, by component with reasons, what failed in it, and the answer that was
    expected.
    """
    calls = [span for span in spans if made_by(span, role, text)]
    conversations = [_transcript(call) for call in _not_continued(calls)]
    return {
        "Inputs": {"task": _shown(trial.task.input)},
        "Generated Outputs": {
            "conversation" if len(conversations) == 1 else f"conversation {number}": conversation
            for number, conversation in enumerate(conversations, start=1)
        }
        | _tools_after(calls, spans)
        | {"answer of the whole agent": _cut(output_text(trial.rollout.output))},
        "Feedback": "\n".join(_feedback(trial, spans, show_expected)),
    }


def made_by(span: Span, role: Role, text: str) -> bool:
    """Whether a model call is one of the role's, whose prompt was ``text``. Of a prompt with a name nothing tells which
    calls had it, so all may have."""
    if span.kind != "llm" or span.generation is None:
        return False
    if role.named:
        return True
    return span.agent == role.agent and (role.replaces is None or text in _system_texts(span))


def _feedback(trial: Trial, spans: Sequence[Span], show_expected: bool) -> Iterator[str]:
    rollout = trial.rollout
    yield "This could not be scored." if trial.score is None else f"Score: {trial.score:g}"
    parts = rollout.rewards
    if len(parts) > 1 or any(part.reason for part in parts):
        yield from (_reward(part) for part in parts)
    if rollout.failure is not None:
        yield f"The agent failed: {_cut(explain(rollout.failure))}"
    for span in spans:
        if span.failure is not None and span.failure != rollout.failure:
            yield f"The {_KINDS.get(span.kind, span.kind)} {span.name} failed: {_cut(explain(span.failure))}"
    for span in spans:
        finish = span.generation.finish_reason if span.generation is not None else None
        if finish == "length":
            yield "An answer was cut off at the limit of tokens."
            break
    if show_expected and trial.task.expected is not None:
        yield f"The expected answer: {_shown(trial.task.expected)}"


_KINDS = {"llm": "model call", "tool": "tool"}


def _reward(part: Reward) -> str:
    value = "no value" if part.value is None else f"{part.value:g}"
    weight = f" (weight {part.weight:g})" if part.weight != 1 else ""
    return f"{'step reward' if part.step else 'reward'} {part.name}: {value}{weight}" + (
        f": {_cut(part.reason)}" if part.reason else ""
    )


def _not_continued(calls: Sequence[Span]) -> Iterator[Span]:
    """Of calls whose messages begin with those of an earlier one, only the last: it has all of them."""
    for place, call in enumerate(calls):
        assert call.generation is not None
        said = call.generation.messages
        later = [after.generation.messages for after in calls[place + 1 :] if after.generation is not None]
        if not any(len(messages) > len(said) and messages[: len(said)] == said for messages in later):
            yield call


def _transcript(call: Span) -> str:
    generation = call.generation
    assert generation is not None
    said = [message for message in generation.messages if message.get("role") not in SYSTEM_ROLES]
    answered = [{"role": "assistant", **generation.response}] if generation.response is not None else []
    return "\n".join(_line(message) for message in (*said, *answered))


def _tools_after(calls: Sequence[Span], spans: Sequence[Span]) -> dict[str, str]:
    """What tools gave that no call was shown any more."""
    last = max((call.index for call in calls), default=-1)
    gave = [
        f"{span.name}({_shown(span.attributes.get(semconv.TOOL_CALL_ARGUMENTS, ''))}) gave "
        + _shown(span.attributes[semconv.TOOL_CALL_RESULT])
        for span in spans
        if span.kind == "tool" and span.index > last and semconv.TOOL_CALL_RESULT in span.attributes
    ]
    return {"tools after it": "\n".join(gave)} if gave else {}


def _line(message: dict[str, Any]) -> str:
    text = _cut(text_of(message.get("content")) or "")
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        text += f"{' ' if text else ''}[calls {function.get('name')}({_cut(str(function.get('arguments') or ''))})]"
    return f"{message.get('role')}: {text}"


def _system_texts(span: Span) -> list[str]:
    messages = span.generation.messages if span.generation is not None else []
    return [text_of(message.get("content")) or "" for message in messages if message.get("role") in SYSTEM_ROLES]


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return _cut(value)
    try:
        return _cut(msgspec.json.encode(value, enc_hook=str).decode())
    except (TypeError, ValueError, RecursionError):
        return _cut(str(value))


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"
