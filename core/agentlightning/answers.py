"""What an agent said, read out of whatever its framework returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEEPEST = 32
"""How many layers an output may have around its answer."""


def final_answer(output: Any) -> Any:
    """The innermost answer of an agent's output: text, or a structured object.

    Looked for in this order: the last of ``messages``, ``output``, ``content``, each as a key or an attribute,
    and the text blocks of a list of content blocks. What has none of them is the answer itself.
    """
    for _ in range(DEEPEST):
        inner = _inner(output)
        if inner is None:
            break
        output = inner
    return _joined_blocks(output)


def output_text(output: Any) -> str:
    """`final_answer` as text: a structured answer as JSON, none as the empty string."""
    answer = final_answer(output)
    if answer is None:
        return ""
    if isinstance(answer, Mapping | list | tuple):
        try:
            return json.dumps(answer, ensure_ascii=False, default=str)
        except (TypeError, ValueError):  # keys that are no text, circles
            return repr(answer)
        except RecursionError:
            return ""
    return str(answer)


def _inner(output: Any) -> Any:
    """What is one layer further in; None where nothing is."""
    messages = _get(output, "messages")
    if isinstance(messages, list | tuple) and messages:
        return messages[-1]
    found = _get(output, "output")
    return found if found is not None else _get(output, "content")


def _get(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)


def _joined_blocks(content: Any) -> Any:
    """OpenAI and Anthropic content blocks, ``[{"type": "text", "text": …}, …]``, as one text."""
    if not isinstance(content, list) or not any(isinstance(_get(block, "text"), str) for block in content):
        return content
    texts = [block if isinstance(block, str) else _get(block, "text") for block in content]
    return "".join(text for text in texts if isinstance(text, str))
