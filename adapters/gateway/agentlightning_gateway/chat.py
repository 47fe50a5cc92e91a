"""Messages → text → tokens, and tokens → text: the tokenizer and its chat template."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from transformers import PreTrainedTokenizerBase

from agentlightning_gateway.fields import say_unconstrained
from agentlightning_gateway.protocol import ApiError, Message, message_dict
from agentlightning_gateway.tool_calls import THOUGHTS
from agentlightning_gateway.tool_formats import FORMATS, recognise

logger = logging.getLogger(__name__)

BYTES_PER_TOKEN = 64
"""No text has more, in the mean: prompts that the context cannot hold at this rate are refused before they are
tokenised, which takes seconds for megabytes."""
TAIL = 16
"""Tokens at the end of a prompt among which a thought is begun, if it begins one."""
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What a template raises, on purpose or over messages that it did not expect."""
SENTINEL = "\u2063placeholder\u2063"
"""Text that no template contains, to find where an assistant's message ends."""

OWN_VARIABLES = {"messages", *inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters}
"""What a request cannot set for the template."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Chat:
    """A tokenizer and its chat template.

    ``turn_end`` is what the template writes after an assistant's message; None where that cannot be told.
    ``end_ids`` are the tokens that end an answer. ``tool_format`` is how the model writes calls: a name of
    `agentlightning_gateway.tool_formats.FORMATS`, or ``auto``, as the chat template tells.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int], tool_format: str = "auto") -> None:
        # a tokenizer is not safe to use from two threads, and the trainer has its own use of the original
        self._tokenizer = copy.deepcopy(tokenizer)
        self._warned = False
        self._texts: dict[int, str] = {}
        self._hidden = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.tool_format = recognise(str(tokenizer.chat_template)) if tool_format == "auto" else FORMATS[tool_format]
        # what must stay in the text for calls and thoughts to be found
        marks = {*self.tool_format.marks, *THOUGHTS, *THOUGHTS.values()}
        self._hidden -= {id for id, token in tokenizer.added_tokens_decoder.items() if token.content in marks}
        self._bytes = {id for token, id in tokenizer.get_vocab().items() if _BYTE.fullmatch(token)}
        self.turn_end = self._turn_end()
        ends = {*end_ids, tokenizer.eos_token_id} - {None}
        closing = self.encode(self.turn_end or "")
        if closing and closing[0] in tokenizer.added_tokens_decoder:
            ends.add(closing[0])
        self.end_ids: frozenset[int] = frozenset(ends)

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any] | None = None,
        *,
        answer: bool = True,
    ) -> str:
        """The prompt as text; with ``answer``, up to where the assistant begins to write. ``variables`` are the
        template's own (``enable_thinking``, say).

        Raises `ApiError` where the template refuses the messages.
        """
        self._warn_about_tools(tools)

        def apply(*, arguments_as_text: bool) -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    [message_dict(message, arguments_as_text=arguments_as_text) for message in messages],
                    tools=tools or None,  # type: ignore[arg-type]
                    add_generation_prompt=answer,
                    tokenize=False,
                    **(variables or {}),
                )
            )

        try:
            return apply(arguments_as_text=False)
        except TEMPLATE_ERRORS as error:
            if any(message.tool_calls for message in messages):
                with contextlib.suppress(*TEMPLATE_ERRORS):
                    return apply(arguments_as_text=True)  # DeepSeek V3.1's takes them so
            raise ApiError(400, f"messages: the chat template refuses them: {error}", param="messages") from error

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Text → ids. Special tokens are read; with ``special``, those that the tokenizer adds to a text are added."""
        return list(self._tokenizer.encode(text, add_special_tokens=special))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → text without special tokens, but with the marks of thoughts and tool calls."""
        shown = [id for id in ids if id not in self._hidden]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def decode_settled(self, ids: Sequence[int]) -> str:
        """Ids → text, without the byte tokens at their end: what they are is known when the last of them is there."""
        size = len(ids)
        while size and ids[size - 1] in self._bytes:
            size -= 1
        return self.decode(ids[:size])

    def token_text(self, id: int) -> str:
        """One token as text, special or not."""
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = str(self._tokenizer.decode([id], clean_up_tokenization_spaces=False))
        return text

    def known_variables(self, variables: Mapping[str, Any], *, unconstrained: bool) -> dict[str, Any]:
        """Those of ``variables`` that the template knows; the log says, once, which are passed over where
        ``unconstrained``. Raises `ApiError` for one that it does not know, or that the engine sets itself."""
        template = str(self._tokenizer.chat_template)
        known = {}
        for name, value in variables.items():
            param = name if name == "reasoning_effort" else f"chat_template_kwargs.{name}"
            if name in OWN_VARIABLES:
                raise ApiError(400, f"{param} is the engine's own: it cannot be set", param=param)
            if re.search(rf"\b{re.escape(name)}\b", template):
                known[name] = value
            elif unconstrained:
                say_unconstrained(param)
            else:
                raise ApiError(400, f"{param}: the model's chat template has no such variable", param=param)
        return known

    def open_thought(self, prompt: Sequence[int]) -> str | None:
        """The mark of a thought that a prompt ends with, as some templates have it."""
        text = str(self._tokenizer.decode(list(prompt[-TAIL:]), skip_special_tokens=False)).rstrip()
        return next((mark for mark in THOUGHTS if text.endswith(mark)), None)

    def continuation(
        self,
        before: Sequence[Message],
        new: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any],
        last_id: int,
    ) -> list[int] | None:
        """What follows the tokens of ``before`` (they end with an answer whose last token is ``last_id``):
        the end of that turn as far as it was not sampled, the new messages, and the start of an answer.

        None where the template writes no text of that kind.
        """
        if self.turn_end is None:
            return None
        after = self._after(before, new, tools, variables)
        if after is None:
            return None
        closing = self.turn_end
        if last_id in self.end_ids:
            closing = closing.removeprefix(self.token_text(last_id))
        return self.encode(closing + after)

    def _after(
        self,
        before: Sequence[Message],
        new: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> str | None:
        end = self.turn_end or ""
        head = self.render(before, tools, variables, answer=False)
        whole = self.render([*before, *new], tools, variables)
        if head.endswith(end) and whole.startswith(head):
            return whole[len(head) :]
        # templates that show an answer otherwise once it is in the past (reasoning cut out, say)
        plain = self.render([*before[:-1], Message(role="assistant", content=SENTINEL), *new], tools, variables)
        _, found, rest = plain.partition(SENTINEL)
        return rest.removeprefix(end) if found and rest.startswith(end) else None

    def _turn_end(self) -> str | None:
        messages = [Message(role="user", content="a"), Message(role="assistant", content=SENTINEL)]
        text = self.render(messages, None, answer=False)
        _, found, end = text.partition(SENTINEL)
        return end if found and end else None

    def _warn_about_tools(self, tools: list[dict[str, Any]] | None) -> None:
        if tools and not self._warned:
            self._warned = True
            if template_shows(self).tools:
                return
            logger.warning(
                "the chat template shows the model no tools: describe them in the prompt, or give model.chat_template "
                "(hermes-tools, say)"
            )


class TemplateShows(NamedTuple):
    """What of a request a chat template shows to the model."""

    messages: bool
    tools: bool


def template_shows(chat: Chat) -> TemplateShows:
    """Whether the template writes the text of a message, and the name of a tool that is on offer.

    Raises `ApiError` where the template refuses a chat of one user's message.
    """
    messages = [Message(role="user", content=SENTINEL)]
    tool = {"name": SENTINEL, "description": "", "parameters": {"type": "object", "properties": {}}}
    without = chat.render(messages, None)
    with_tools = chat.render(messages, [{"type": "function", "function": tool}])
    # a name is quoted by some templates, so it may be there as JSON escapes
    return TemplateShows(SENTINEL in without, with_tools.count("placeholder") > without.count("placeholder"))
