"""Chat templates for models that have none, or one that shows no tools: from a file, inline or by name."""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from agentlightning.errors import PolicyError

CHATML = ("<|im_start|>", "<|im_end|>")
"""The tokens around a turn, in all templates that come with this distribution."""


@functools.cache
def named_templates() -> dict[str, str]:
    """The chat templates that come with this distribution, by name."""
    files = (resources.files("agentlightning_policy") / "chat_templates").iterdir()
    texts = {file.name.removesuffix(".jinja"): file.read_text(encoding="utf-8") for file in files}
    return dict(sorted(texts.items()))


def read_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that ``template`` stands for: itself, one of `named_templates`, or a file.

    Raises `PolicyError` where there is none, or the tokenizer lacks the tokens of its turns.
    """
    if "{%" in template or "{{" in template:
        return template
    named = named_templates()
    if template in named:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in CHATML if token not in vocabulary]
        if missing:
            raise PolicyError(
                f"model.chat_template: {template} writes ChatML, and the model's tokenizer has no token {missing[0]}: "
                "give a Jinja file that writes turns as the model knows them"
            )
        return named[template]
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError(
            f"model.chat_template: {template} cannot be read: {reason}; give a Jinja file, or one of these by name: "
            f"{', '.join(named)}"
        ) from error
