"""What the model that reflects is asked (after Pryzant et al. 2023, appendix). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Messages = list[dict[str, str]]


def gradient(text: str, examples: Sequence[Mapping[str, object]], count: int) -> Messages:
    """For ``count`` reasons why a prompt went wrong: the gradient of the paper."""
    return _asked(
        f"{_situation(text, examples)}\n\n"
        f"Give {count} reasons why the prompt could have gotten these examples wrong. "
        "Wrap each reason with <START> and <END>."
    )


def edit(text: str, examples: Sequence[Mapping[str, object]], reason: str, fields: Sequence[str]) -> Messages:
    """For a prompt that goes against one reason."""
    return _asked(
        f"{_situation(text, examples)}\n\n"
        f"The problem with this prompt is that {reason}\n\n"
        "Based on this, write one improved prompt, and nothing else. "
        f"Wrap it with <START> and <END>.{_about(fields)}"
    )


def paraphrase(text: str, fields: Sequence[str]) -> Messages:
    """For another wording of the same: the Monte Carlo successors of the paper."""
    return _asked(
        "Write a variation of the following instruction that keeps its meaning, and nothing else. "
        f"Wrap it with <START> and <END>.{_about(fields)}\n\nInstruction: <START>{text}<END>"
    )


def _asked(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _situation(text: str, examples: Sequence[Mapping[str, object]]) -> str:
    shown = "\n\n".join(
        f"Example {number}\n" + "\n".join(f"{name}: {_flat(value)}" for name, value in example.items())
        for number, example in enumerate(examples, start=1)
    )
    return (
        "I'm trying to write a prompt for an assistant.\n\n"
        f'My current prompt is:\n"{text}"\n\n'
        f"But this prompt gets the following examples wrong:\n\n{shown}"
    )


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {inner}" for name, inner in value.items())
    return str(value)


def _about(fields: Sequence[str]) -> str:
    if not fields:
        return ""
    names = ", ".join(f"{{{name}}}" for name in fields)
    return f" Keep the fields {names} as they are: a program fills them in."
