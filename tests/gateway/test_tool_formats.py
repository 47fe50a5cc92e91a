"""Tool calls as the chat templates of model families write them, read back; and recognised by the template."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_gateway import Gateway, GatewayConfig
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.protocol import Function, Message, ToolCall
from agentlightning_gateway.tool_calls import assemble, may_become_call
from agentlightning_gateway.tool_formats import FORMATS, ToolFormat

EACH = "{% for call in message.tool_calls %}"
NAME, ARGUMENTS = "{{ call.function.name }}", "{{ call.function.arguments | tojson }}"
XML = (
    EACH
    + "\n<tool_call>\n<function="
    + NAME
    + ">\n{% for name, value in call.function.arguments | items %}<parameter={{ name }}>\n"
    + "{{ value | tojson if value is mapping or (value is sequence and value is not string) else value | string }}\n"
    + "</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"
)
PYTHON = (
    "["
    + EACH
    + NAME
    + "({% for name, value in call.function.arguments | items %}{{ name }}={{ '%r' | format(value) }}"
    + "{{ '' if loop.last else ', ' }}{% endfor %}){{ '' if loop.last else ', ' }}{% endfor %}]"
)
NAMED = '{"name": "' + NAME + '", "arguments": ' + ARGUMENTS
LLAMA = '{"name": "' + NAME + '", "parameters": ' + ARGUMENTS + "}"
LAST, COMMA = "{% endfor %}", "{{ '' if loop.last else ', ' }}"
BEGIN, NEXT, SEPARATOR, END, DONE = FORMATS["deepseek"].marks
# How the template of each family shows an assistant's calls.
CALLS = {
    "Hermes": ("hermes", EACH + "<tool_call>\n" + NAMED + "}\n</tool_call>\n" + LAST),
    "Qwen3-Coder": ("qwen3-coder", XML),
    "Mistral v3": ("mistral", "[TOOL_CALLS] [" + EACH + NAMED + ', "id": "{{ nine(call.id) }}"}' + COMMA + LAST + "]"),
    "Mistral v11": ("mistral", EACH + "[TOOL_CALLS]" + NAME + "[ARGS]" + ARGUMENTS + LAST),
    "Mistral with ids": ("mistral", EACH + "[TOOL_CALLS]" + NAME + "[CALL_ID]{{ call.id }}[ARGS]" + ARGUMENTS + LAST),
    "Llama 3": ("llama3", EACH + LLAMA + "{{ '' if loop.last else '; ' }}" + LAST),
    "Llama 3 with a tag": ("llama3", EACH + "{{ '<|python_tag|>' if loop.first else ';' }}" + LLAMA + LAST),
    "Llama 3.2": ("pythonic", PYTHON + "{# [func_name1(params_name1=params_value1)] #}"),
    "Llama 4": ("pythonic", "<|python_start|>" + PYTHON + "<|python_end|>"),
    "DeepSeek V3": (
        "deepseek",
        f"{BEGIN}{EACH}{{{{ '' if loop.first else '\n' }}}}{NEXT}function{SEPARATOR}{NAME}"
        f"\n```json\n{ARGUMENTS}\n```{END}{LAST}{DONE}",
    ),
    "DeepSeek V3.1": (
        "deepseek",
        f"{BEGIN}{EACH}{NEXT}{NAME}{SEPARATOR}{{{{ '' + call.function.arguments }}}}{END}{LAST}{DONE}",
    ),
}
TEMPLATE = """\
{% macro nine(id) %}{{ id if id | length == 9 else raise_exception('ids have 9 characters') }}{% endmacro %}\
{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.tool_calls %}CALLS{% else %}{{ message.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PROPERTIES = {"text": "string", "count": "integer", "exact": "boolean", "tags": "array", "more": "object"}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {each: {"type": type} for each, type in PROPERTIES.items()}},
        },
    }
    for name in ("search", "look_up")
]
ASKED = [
    ("search", {"text": 'say "it\'s", é', "count": -3, "exact": True, "tags": ["a", "b"], "more": {"deep": [1.5]}}),
    ("look_up", {"text": "71"}),
]
HI = [{"role": "user", "content": "hi"}]


def chat_of(calls: str) -> Chat:
    tokenizer = make_tokenizer()
    marks = sorted({mark for format in FORMATS.values() for mark in format.marks if mark != "<function="})
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = TEMPLATE.replace("CALLS", calls)
    return Chat(tokenizer, ())


def written_by(chat: Chat, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """What the assistant writes to make these calls, as its template shows it."""
    made = [ToolCall(f"abc{n:06}", Function(name, json.dumps(asked))) for n, (name, asked) in enumerate(calls)]
    user = Message(role="user", content="hi")
    prompt = chat.render([user], None)
    text = chat.render([user, Message(role="assistant", tool_calls=made)], None, answer=False)
    assert text.startswith(prompt)
    return text[len(prompt) :].removesuffix("<|im_end|>\n")


def read(message: Message) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


@pytest.mark.parametrize("family", CALLS)
def test_calls_are_read_as_the_template_of_the_family_writes_them(family: str) -> None:
    name, calls = CALLS[family]
    chat = chat_of(calls)
    text = written_by(chat, ASKED)
    assert chat.tool_format.name == name
    assert chat.decode(chat.encode(text)) == text, "marks that are special tokens stay"
    message = assemble(text, TOOLS, format=chat.tool_format)
    assert read(message) == ASKED
    assert message.content is None


@pytest.mark.parametrize("family", [family for family in CALLS if family not in ("Llama 3", "Llama 3.2")])
def test_text_before_marked_calls_is_kept(family: str) -> None:
    chat = chat_of(CALLS[family][1])
    message = assemble(f"Let me see. {written_by(chat, ASKED)}", TOOLS, format=chat.tool_format)
    assert (message.content, read(message)) == ("Let me see.", ASKED)


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("asked", [ASKED, ASKED[:1]], ids=["two", "one"])
def test_half_a_call_is_none(family: str, asked: list[tuple[str, dict[str, Any]]]) -> None:
    """Cut anywhere: what is read is a beginning of what was to be, and no call is made up."""
    chat = chat_of(CALLS[family][1])
    text = written_by(chat, asked)
    for size in range(0, len(text), 3):
        calls = read(assemble(text[:size], TOOLS, format=chat.tool_format))
        assert calls == asked[: len(calls)]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("qwen3-coder", "<tool_call>\n<function=search>\n<parameter=text>\n71"),
        ("qwen3-coder", "<tool_call>\n<function=search>\nand so on\n</function>\n</tool_call>"),
        ("mistral", "[TOOL_CALLS]search[ARGS]71"),
        ("mistral", "[TOOL_CALLS]search[ARGS]"),
        ("mistral", '[TOOL_CALLS][{"name": "search", "arguments": {}}, 71]'),
        ("llama3", "<|python_tag|>print(71)"),
        ("pythonic", "[search(71)]"),
        ("pythonic", "[search(text=other)]"),
        ("pythonic", "[search(text={1, 2})]"),
        ("pythonic", "[search(count=1e999)]"),
        ("pythonic", "[search(**{})]"),
        ("pythonic", "[search(text='a')] it is"),
        ("pythonic", "[fly(text='a')]"),
        ("pythonic", "[" * 5000),
        ("pythonic", "[71]"),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>"),
        ("deepseek", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>71<｜tool▁call▁end｜>"),
    ],
)
def test_what_is_no_call_stays_text(format: str, text: str) -> None:
    message = assemble(text, TOOLS, format=FORMATS[format])
    assert (message.content, message.tool_calls) == (text, None)


def test_a_value_that_does_not_fit_its_schema_stays_text() -> None:
    text = "<tool_call>\n<function=search>\n<parameter=count>\nthree\n</parameter>\n</function>\n</tool_call>"
    assert read(assemble(text, TOOLS, format=FORMATS["qwen3-coder"])) == [("search", {"count": "three"})]


def test_an_id_that_the_model_wrote_is_kept_and_others_have_the_length_that_the_template_wants() -> None:
    text = "[TOOL_CALLS]search[CALL_ID]abcdef123[ARGS]{}[TOOL_CALLS]search[ARGS]{}"
    first, second = assemble(text, TOOLS, format=FORMATS["mistral"]).tool_calls or []
    assert (first.id, len(second.id), second.id.isalnum()) == ("abcdef123", 9, True)


PIECES = [
    *sorted({mark for format in FORMATS.values() for mark in format.marks}),
    *('{"name": "search", "arguments": {}}', "[search(text='a')]", "search", "search>", "{}", "function", "```json\n"),
    *("<parameter=text>", "</parameter>", "</function>", "<think>", "</think>", "text", " ", "\n", "[", "]", ";", "<"),
]


@given(
    format=st.sampled_from(list(FORMATS.values())),
    parts=st.lists(st.sampled_from(PIECES), max_size=9),
    thought=st.sampled_from([None, "<think>"]),
)
def test_a_stream_never_shows_what_the_whole_message_does_not(
    format: ToolFormat, parts: list[str], thought: str | None
) -> None:
    text = "".join(parts)
    whole = assemble(text, TOOLS, format=format, thought=thought).text
    for size in range(len(text) + 1):
        assert whole.startswith(text[: may_become_call(text[:size], thought, format)])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("family", CALLS)
async def test_a_tool_is_called_and_its_result_goes_on_from_the_very_tokens(family: str, stream: bool) -> None:
    chat = chat_of(CALLS[family][1])
    sampler = FakeSampler(chat._tokenizer, written_by(chat, ASKED[:1]))
    async with (
        Gateway(sampler, tokenizer=chat._tokenizer) as gateway,
        openai.AsyncOpenAI(
            base_url=gateway.base_url, api_key="none", default_headers={"x-agentlightning-rollout": "r"}
        ) as client,
    ):
        ask: dict[str, Any] = {"model": "fake", "tools": TOOLS, "extra_body": {"return_token_ids": True}}
        if stream:
            async with client.chat.completions.stream(messages=HI, **ask) as events:
                answer = await events.get_final_completion()
        else:
            answer = await client.chat.completions.create(messages=HI, **ask)
        message = answer.choices[0].message
        (call,) = message.tool_calls
        result = {"role": "tool", "tool_call_id": call.id, "content": "71"}
        messages = [*HI, message.model_dump(exclude_none=True), result]
        second = await client.chat.completions.create(messages=messages, **ask)
    assert (call.function.name, json.loads(call.function.arguments)) == ASKED[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    first = chat.encode(chat.render([Message(role="user", content="hi")], TOOLS)) + sampler.ids
    assert second.prompt_token_ids[: len(first)] == first
    assert gateway.stats.continued == 1


async def test_the_format_can_be_named() -> None:
    chat = chat_of(CALLS["Hermes"][1])
    sampler = FakeSampler(chat._tokenizer, "[search(text='a')]")
    async with (
        Gateway(sampler, GatewayConfig(tool_format="pythonic"), tokenizer=chat._tokenizer) as gateway,
        openai.AsyncOpenAI(base_url=gateway.base_url, api_key="none") as client,
    ):
        answer = await client.chat.completions.create(model="fake", messages=HI, tools=TOOLS)
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"text":"a"}'
