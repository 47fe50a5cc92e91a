"""Messages → text → tokens, and tokens → messages: chat templates and tool calls."""

from __future__ import annotations

import copy
import json
import logging
import secrets
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jinja2
import msgspec
from transformers import PreTrainedTokenizerBase

from agentlightning_policy.engine.protocol import ApiError, Function, Message, ToolCall, message_dict

logger = logging.getLogger(__name__)

OPEN, CLOSE = "<tool_call>", "</tool_call>"
SENTINEL = "\u2063placeholder\u2063"
"""Text that no template contains, to find where an assistant's message ends."""

_json = json.JSONDecoder()


class Chat:
    """A tokenizer and its chat template.

    ``turn_end`` is what the template writes after an assistant's message; None where that cannot be told.
    ``end_ids`` are the tokens that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Collection[int]) -> None:
        # a tokenizer is not safe to use from two threads, and the trainer has its own use of the original
        self._tokenizer = copy.deepcopy(tokenizer)
        self._warned = False
        self.turn_end = self._turn_end()
        ends = {*end_ids, tokenizer.eos_token_id} - {None}
        closing = self.encode(self.turn_end or "")
        if closing and closing[0] in tokenizer.added_tokens_decoder:
            ends.add(closing[0])
        self.end_ids: frozenset[int] = frozenset(ends)

    def render(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, *, answer: bool = True) -> str:
        """The prompt as text; with ``answer``, up to where the assistant begins to write.

        Raises `ApiError` where the template refuses the messages.
        """
        self._warn_about_tools(tools)
        try:
            text = self._tokenizer.apply_chat_template(
                [message_dict(message) for message in messages],
                tools=tools or None,  # type: ignore[arg-type]
                add_generation_prompt=answer,
                tokenize=False,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise ApiError(400, f"messages: the chat template refuses them: {error}", param="messages") from error
        return str(text)

    def encode(self, text: str) -> list[int]:
        """Text → ids; special tokens are read, none are added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids → text without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_text(self, id: int) -> str:
        """One token as text, special or not."""
        return str(self._tokenizer.decode([id], clean_up_tokenization_spaces=False))

    def continuation(
        self, before: Sequence[Message], new: Sequence[Message], tools: list[dict[str, Any]] | None, last_id: int
    ) -> list[int] | None:
        """What follows the tokens of ``before`` (they end with an answer whose last token is ``last_id``):
        the end of that turn as far as it was not sampled, the new messages, and the start of an answer.

        None where the template writes no text of that kind.
        """
        if self.turn_end is None:
            return None
        after = self._after(before, new, tools)
        if after is None:
            return None
        closing = self.turn_end
        if last_id in self.end_ids:
            closing = closing.removeprefix(self.token_text(last_id))
        return self.encode(closing + after)

    def _after(
        self, before: Sequence[Message], new: Sequence[Message], tools: list[dict[str, Any]] | None
    ) -> str | None:
        end = self.turn_end or ""
        head = self.render(before, tools, answer=False)
        whole = self.render([*before, *new], tools)
        if head.endswith(end) and whole.startswith(head):
            return whole[len(head) :]
        # templates that show an answer otherwise once it is in the past (reasoning cut out, say)
        plain = self.render([*before[:-1], Message(role="assistant", content=SENTINEL), *new], tools)
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
                "the chat template shows the model no tools: describe them in the prompt, or give model.chat_template"
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


def assemble(text: str, tools: list[dict[str, Any]] | None) -> Message:
    """The assistant's message that a text stands for: with tools on offer, Hermes ``<tool_call>`` blocks and
    bare JSON calls are read out of it. A call that is not well-formed stays text."""
    if not tools:
        return Message(role="assistant", content=text)
    names = {tool["function"]["name"] for tool in tools}
    calls, rest = _hermes_calls(text)
    if not calls:
        calls, rest = _bare_calls(text, names)
    if not calls:
        return Message(role="assistant", content=text)
    return Message(role="assistant", content=rest.rstrip() or None, tool_calls=calls)


def may_become_call(text: str) -> int:
    """How many characters at the start of ``text`` can be no part of a tool call, whatever comes after."""
    if text.lstrip()[:1] in ("", "{", "[", "`"):
        return 0
    at = text.find(OPEN)
    if at >= 0:
        return len(text[:at].rstrip())
    for size in range(min(len(OPEN) - 1, len(text)), 0, -1):
        if text.endswith(OPEN[:size]):
            return len(text[:-size].rstrip())
    return len(text.rstrip())


def _hermes_calls(text: str) -> tuple[list[ToolCall], str]:
    calls: list[ToolCall] = []
    rest, at = "", 0
    while (start := text.find(OPEN, at)) >= 0:
        value, end = _json_at(text, start + len(OPEN))
        call = _call(value)
        if call is None:
            rest += text[at : start + len(OPEN)]
            at = start + len(OPEN)
            continue
        calls.append(call)
        rest += text[at:start]
        at = end + len(text[end:]) - len(text[end:].lstrip())
        at = at + len(CLOSE) if text.startswith(CLOSE, at) else end
    return calls, rest + text[at:]


def _bare_calls(text: str, names: Collection[str]) -> tuple[list[ToolCall], str]:
    body = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not body.startswith(("{", "[")):
        return [], text
    value, end = _json_at(body, 0)
    if body[end:].strip():
        return [], text
    values = value if isinstance(value, list) else [value]
    calls = [_call(each) for each in values]
    known = [call for call in calls if call is not None and call.function.name in names]
    return (known, "") if known and len(known) == len(values) else ([], text)


def _json_at(text: str, at: int) -> tuple[Any, int]:
    at += len(text[at:]) - len(text[at:].lstrip())
    try:
        return _json.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at


def _call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    text = msgspec.json.encode(arguments).decode()
    return ToolCall(id=f"call_{secrets.token_hex(12)}", function=Function(value["name"], text))
