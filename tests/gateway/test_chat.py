"""Chat templates: what they show, which variables they take, and the one that comes with the distribution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentlightning.errors import PolicyError
from agentlightning_gateway.chat import Chat, template_shows
from agentlightning_gateway.protocol import Function, Message, ToolCall
from agentlightning_gateway.tool_calls import assemble
from agentlightning_policy.model import ModelConfig, PolicyModel


@pytest.mark.parametrize(
    ("template", "shows"),
    [
        (None, (True, True)),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", (True, False)),
        ("{{ tools }}", (False, True)),
        ("{% if tools %}You have tools.{% endif %}{{ messages[0].content }}", (True, False)),
        ("Say something.", (False, False)),
    ],
)
def test_a_template_is_asked_what_it_shows(policy: PolicyModel, template: str | None, shows: tuple[bool, bool]) -> None:
    if template is not None:
        policy.tokenizer.chat_template = template
    assert template_shows(Chat(policy.tokenizer, ())) == shows


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "add", "description": "Adds 'é' & <b>.", "parameters": {"type": "object", "properties": {}}},
}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": [1, "é"]}}\n</tool_call>'


def call(id: str) -> ToolCall:
    return ToolCall(id=id, function=Function("add", '{"a":[1,"é"]}'))


CONVERSATION = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="1 + 1?"),
    Message(role="assistant", content="Let me see.", tool_calls=[call("a"), call("b")]),
    Message(role="tool", content="2", tool_call_id="a"),
    Message(role="tool", content="3", tool_call_id="b"),
    Message(role="assistant", content="2"),
    Message(role="system", content="Be kind."),
    Message(role="user", content="And now?"),
]


@pytest.fixture
def hermes(tiny_model: Path) -> Chat:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), chat_template="hermes-tools"))
    return Chat(policy.tokenizer, ())


def test_hermes_tools_writes_what_its_models_know(hermes: Chat) -> None:
    assert template_shows(hermes) == (True, True)
    assert (
        hermes.render(CONVERSATION, [TOOL])
        == f"""\
<|im_start|>system
Be brief.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{json.dumps(TOOL, ensure_ascii=False)}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call><|im_end|>
<|im_start|>user
1 + 1?<|im_end|>
<|im_start|>assistant
Let me see.
{CALL}
{CALL}<|im_end|>
<|im_start|>tool
<tool_response>
2
</tool_response><|im_end|>
<|im_start|>tool
<tool_response>
3
</tool_response><|im_end|>
<|im_start|>assistant
2<|im_end|>
<|im_start|>system
Be kind.<|im_end|>
<|im_start|>user
And now?<|im_end|>
<|im_start|>assistant
"""
    )


def test_hermes_tools_without_tools_or_system_message_is_plain_chatml(hermes: Chat) -> None:
    user = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert hermes.render(CONVERSATION[:2], None) == f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"
    assert hermes.render(CONVERSATION[1:2], None) == user
    assert hermes.render(CONVERSATION[1:2], [TOOL]).startswith("<|im_start|>system\n# Tools\n\n")


@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_hermes_tools_goes_on_from_what_it_wrote_before(hermes: Chat, tools: list[dict[str, Any]] | None) -> None:
    for size in range(1, len(CONVERSATION)):
        assert hermes.render(CONVERSATION, tools).startswith(hermes.render(CONVERSATION[:size], tools, answer=False))


def test_hermes_tools_shows_a_call_as_the_engine_reads_it(hermes: Chat) -> None:
    (read,) = assemble(CALL, [TOOL]).tool_calls or []
    shown = hermes.render([Message(role="assistant", tool_calls=[read])], None, answer=False)
    assert shown == f"<|im_start|>assistant\n{CALL}<|im_end|>\n"


def test_a_named_template_is_refused_for_a_tokenizer_without_its_tokens(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        text = file.read_bytes()
        renamed = text if file.suffix == ".safetensors" else text.replace(b"<|im_start|>", b"<|start|>")
        (folder / file.name).write_bytes(renamed)
    with pytest.raises(PolicyError, match=r"hermes-tools writes ChatML, .* no token <\|im_start\|>"):
        PolicyModel.load(ModelConfig(path=str(folder), chat_template="hermes-tools"))
