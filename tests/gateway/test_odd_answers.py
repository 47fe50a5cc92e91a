"""What the model wrote is the model's fault, however odd: it is always a valid answer, the same whole and streamed."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from agentlightning_gateway.chat import Chat
from agentlightning_gateway.stream import IncrementalDetokenizer
from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import ModelConfig, PolicyModel

Write = Callable[[list[int]], None]
USER = [{"role": "user", "content": "hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=engine.base_url, api_key="none", max_retries=0) as client:
        yield client


async def answers(client: openai.AsyncOpenAI, write: Write, ids: list[int], **options: Any) -> tuple[Any, Any, str]:
    """The message of a whole answer made of ``ids``, that of a streamed one, and why it ended."""
    options = {"model": "policy", "messages": USER, "tools": TOOLS, "max_tokens": len(ids), **options}
    write(ids)
    whole = (await client.chat.completions.create(**options)).choices[0]
    write(ids)
    content, calls = "", []
    async for chunk in await client.chat.completions.create(stream=True, **options):
        for choice in chunk.choices:
            content += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            finish = choice.finish_reason
    assert finish == whole.finish_reason
    return whole.message, (content, [(call.function.name, call.function.arguments) for call in calls]), finish


def shown(message: Any) -> tuple[str, list[tuple[str, str]]]:
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or []]
    return message.content or "", calls


ODD = {
    "half a pair in an argument": '<tool_call>{"name": "add", "arguments": {"a": "\\ud83d"}}</tool_call>',
    "half a pair in a name": '<tool_call>{"name": "\\udc00", "arguments": {}}</tool_call>',
    "half a pair in a key": '<tool_call>{"name": "add", "arguments": {"\\ud83d": 1}}</tool_call>',
    "no number": '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
    "a number out of range": '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
    "a number of 300 digits": f'<tool_call>{{"name": "add", "arguments": {{"a": {"9" * 300}}}}}</tool_call>',
    "a deep argument": f'<tool_call>{{"name": "add", "arguments": {{"a": {"[" * 127}{"]" * 127}}}}}</tool_call>',
    "too deep an argument": f'<tool_call>{{"name": "add", "arguments": {{"a": {"[" * 130}{"]" * 130}}}}}</tool_call>',
    "a call in a thought": f"<think>{CALL}</think> 71",
    "a call in a thought without an end": f"<think>{CALL}",
    "a call after a thought": f"<think>{CALL}</think>{CALL}",
    "two calls": f"{CALL}\n{CALL}",
    "a call in a call": f"<tool_call>{CALL}",
    "text and a call": f"let me see\n\n {CALL} ",
    "another tool": '<tool_call>{"name": "fly", "arguments": {}}</tool_call>',
    "a call without an end": '<tool_call>{"name": "add", "argum',
    "control characters": "a\x00b\x1b[31m\x7f\u2028",
    "a special token": "one<|im_start|>two",
    "white space": " \n\t ",
    "markup": '<tool_call></tool_call>{"[`<think></think>',
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("ended", [True, False])
async def test_an_odd_text_is_an_answer(
    policy: PolicyModel, client: openai.AsyncOpenAI, write: Write, name: str, ended: bool
) -> None:
    ids = policy.tokenizer.encode(ODD[name])
    whole, streamed, finish = await answers(client, write, [*ids, policy.tokenizer.eos_token_id] if ended else ids)
    assert shown(whole) == streamed
    assert finish == ("length" if not ended else "tool_calls" if whole.tool_calls else "stop")
    for call in whole.tool_calls or []:
        assert isinstance(json.loads(call.function.arguments.encode()), dict)
    again = [*USER, whole.model_dump(exclude_none=True), {"role": "user", "content": "go on"}]
    assert (await client.chat.completions.create(model="policy", messages=again, tools=TOOLS)).choices


@pytest.mark.parametrize("end", [[], [0xF0, 0x9F], [0xFF], [0xE2, 0x82, 0x28], [0xC3]])
async def test_bytes_that_are_no_utf_8_are_an_answer(
    policy: PolicyModel, client: openai.AsyncOpenAI, write: Write, end: list[int]
) -> None:
    letters = {value: key for key, value in bytes_of_letters().items()}
    ids = [*policy.tokenizer.encode("né"), *policy.tokenizer.convert_tokens_to_ids([letters[byte] for byte in end])]
    whole, streamed, _ = await answers(client, write, [*ids, policy.tokenizer.eos_token_id])
    assert shown(whole) == streamed
    assert whole.content.startswith("né")


def bytes_of_letters() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}


async def test_an_end_and_nothing_before_it_is_an_empty_answer(
    policy: PolicyModel, client: openai.AsyncOpenAI, write: Write
) -> None:
    whole, streamed, finish = await answers(client, write, [policy.tokenizer.eos_token_id])
    assert (whole.content, whole.tool_calls, streamed, finish) == ("", None, ("", []), "stop")


async def test_half_a_pair_reaches_the_agent_as_a_replacement_character(
    policy: PolicyModel, client: openai.AsyncOpenAI, write: Write
) -> None:
    whole, *_ = await answers(client, write, policy.tokenizer.encode(ODD["half a pair in an argument"]))
    assert shown(whole)[1] == [("add", '{"a":"\ufffd"}')]


THINKS = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""


async def test_a_thought_that_the_template_begins_holds_no_calls(tiny_model: Path, write: Write) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), chat_template=THINKS))
    async with (
        Engine(policy) as engine,
        openai.AsyncOpenAI(base_url=engine.base_url, api_key="none", max_retries=0) as client,
    ):
        for text, calls in ((f"so {CALL}", 0), (f"so {CALL}</think>", 0), (f"so {CALL}</think>\n{CALL}", 1)):
            whole, streamed, _ = await answers(client, write, policy.tokenizer.encode(text))
            assert shown(whole) == streamed
            assert (whole.content.count(CALL), len(streamed[1])) == (1, calls)


async def test_marks_that_are_special_tokens_are_found(tiny_model: Path, tmp_path: Path, write: Write) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    policy = PolicyModel.load(ModelConfig(path=str(folder)))
    marks = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
    policy.tokenizer.add_special_tokens({"additional_special_tokens": marks})
    policy.base.resize_token_embeddings(len(policy.tokenizer))
    async with (
        Engine(policy, EngineConfig(max_context=512)) as engine,
        openai.AsyncOpenAI(base_url=engine.base_url, api_key="none", max_retries=0) as client,
    ):
        ids = policy.tokenizer.encode(f"<think>so {CALL}</think>{CALL}<|im_start|>")
        whole, streamed, _ = await answers(client, write, ids)
    assert shown(whole) == streamed == (f"<think>so {CALL}</think>", [("add", '{"a":1}')])


def test_byte_tokens_are_shown_when_all_of_a_character_is_there() -> None:
    """A tokenizer that falls back to bytes takes a run of them as a whole: one more may spoil those before it."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<unk>": 0, "a": 1, **{f"<0x{byte:02X}>": byte + 2 for byte in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<unk>")
    fast.chat_template = "{{ messages[0].content }}"
    chat = Chat(fast, ())
    for spoiled in (b"\xc3\xa9", b"\xc3\xa9\xff", b"\xff"):
        ids = [1, *(byte + 2 for byte in spoiled), 1]
        detokenizer = IncrementalDetokenizer(chat.decode_settled, ())
        assert "".join(detokenizer.push(ids[:size]) for size in range(len(ids) + 1)) == chat.decode(ids)
