"""A wish is honoured or refused by name: every field that a request may carry."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from tokenizers.processors import TemplateProcessing

from agentlightning_gateway import fields
from agentlightning_gateway.api_chat import ChatRequest
from agentlightning_gateway.api_responses import ResponsesRequest
from agentlightning_gateway.api_text import TextRequest
from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import ModelConfig, PolicyModel

Ask = Callable[..., Awaitable[Any]]
Write = Callable[[list[int]], None]
HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
PROMPTS: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": HI},
    "responses": {"input": "hi"},
    "completions": {"prompt": "hi"},
}


@pytest.fixture
def post(engine: Engine, client: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    async def post(path: str = "chat/completions", **options: Any) -> httpx.Response:
        body = {"model": "policy", "seed": 1, "return_token_ids": True, **PROMPTS[path], **options}
        return await client.post(f"{engine.base_url}/{path}", json=body)

    return post


def ids(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    body = response.json()
    return body["token_ids"] if "output" in body else [choice["token_ids"] for choice in body["choices"]]


@pytest.mark.parametrize(
    ("request_type", "parameters"),
    [
        (ChatRequest, chat_create_params.CompletionCreateParamsStreaming),
        (ResponsesRequest, response_create_params.ResponseCreateParamsStreaming),
        (TextRequest, completion_create_params.CompletionCreateParamsStreaming),
    ],
)
def test_every_field_of_the_client_has_its_place(request_type: Any, parameters: Any) -> None:
    honoured = {field.encode_name for field in msgspec.structs.fields(request_type)}
    known = honoured | fields.PASSED_OVER | set(fields.NEUTRAL) | set(fields.CONSTRAINTS)
    names = {name for kind in parameters.__mro__ for name in getattr(kind, "__annotations__", {})}
    assert {"model", "stream"} < names
    assert names - known == set()


@pytest.mark.parametrize("path", PROMPTS)
async def test_what_changes_no_draw_is_passed_over(post: Any, path: str) -> None:
    values = dict.fromkeys(fields.PASSED_OVER - {"top_logprobs", "stream_options"}, "anything")
    assert ids(await post(path, **values)) == ids(await post(path))


@pytest.mark.parametrize("path", PROMPTS)
async def test_what_asks_for_what_happens_anyway_is_passed_over(post: Any, path: str) -> None:
    neutral = {name: values[0] for name, values in {**fields.NEUTRAL, **fields.CONSTRAINTS}.items() if values}
    if path == "completions":
        del neutral["add_special_tokens"]
    assert ids(await post(path, **neutral)) == ids(await post(path))
    nothing = dict.fromkeys([*fields.NEUTRAL, *fields.CONSTRAINTS, "nobody_knows_this"])
    assert ids(await post(path, **{name: value for name, value in nothing.items() if name != "prompt"})) == ids(
        await post(path)
    )


WISHES: list[tuple[str, str, Any]] = [
    *(
        (path, name, value)
        for path in PROMPTS
        for name, value in [
            ("presence_penalty", 0.5),
            ("frequency_penalty", -0.5),
            ("repetition_penalty", 1.1),
            ("logit_bias", {"5": 1}),
            ("bad_words", ["a"]),
            ("allowed_token_ids", [1]),
            ("min_tokens", 3),
            ("ignore_eos", True),
            ("include_stop_str_in_output", True),
            ("skip_special_tokens", False),
            ("truncate_prompt_tokens", 3),
            ("echo", True),
            ("suffix", "x"),
            ("best_of", 2),
            ("use_beam_search", True),
            ("continue_final_message", True),
            ("add_generation_prompt", False),
            ("chat_template", "{{ messages }}"),
            ("prompt_logprobs", 1),
            ("previous_response_id", "x"),
            ("conversation", "x"),
            ("background", True),
            ("truncation", "auto"),
            ("modalities", ["audio"]),
            ("audio", {"voice": "x"}),
            ("web_search_options", {}),
            ("verbosity", "low"),
            ("functions", [{"name": "x"}]),
            ("function_call", {"name": "x"}),
            ("guided_json", {"type": "object"}),
            ("guided_regex", "a+"),
            ("guided_choice", ["a"]),
            ("structured_outputs", {"choice": ["a"]}),
            ("nobody_knows_this", 0),
            ("thinking", {"type": "enabled"}),
        ]
    ),
    ("chat/completions", "tool_choice", "required"),
    ("chat/completions", "tool_choice", {"type": "function", "function": {"name": "add"}}),
    ("chat/completions", "response_format", {"type": "json_object"}),
    ("chat/completions", "response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}),
    ("chat/completions", "reasoning_effort", "low"),
    ("chat/completions", "stop", [str(n) for n in range(1_000)]),
    ("chat/completions", "stop", "a" * 5_000),
    ("chat/completions", "stop_token_ids", [-1]),
    ("chat/completions", "stop_token_ids", [2**40]),
    ("chat/completions", "prompt", "hi"),
    ("chat/completions", "tools", [{"type": "custom", "custom": {"name": "x"}}]),
    ("responses", "tool_choice", {"type": "function", "name": "add"}),
    ("responses", "tools", [{"type": "file_search"}]),
    ("responses", "tools", [{"type": "computer_use_preview"}]),
    ("responses", "prompt", {"id": "x"}),
    ("responses", "n", 2),
    ("responses", "stop", ["a"]),
    ("responses", "max_tokens", 3),
    ("completions", "chat_template_kwargs", {"enable_thinking": False}),
    ("completions", "response_format", {"type": "json_object"}),
]


@pytest.mark.parametrize(("path", "name", "value"), WISHES)
async def test_a_wish_that_cannot_be_honoured_is_refused_by_name(post: Any, path: str, name: str, value: Any) -> None:
    response = await post(path, **{name: value})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"].partition("[")[0] == name
    assert name in error["message"]


@pytest.mark.parametrize(
    ("path", "options", "param"),
    [
        ("responses", {"text": {"format": {"type": "json_object"}}}, "text.format"),
        ("responses", {"text": {"verbosity": "high"}}, "text.verbosity"),
        ("responses", {"reasoning": {"effort": "high"}}, "reasoning_effort"),
        ("chat/completions", {"chat_template_kwargs": {"no_such": 1}}, "chat_template_kwargs.no_such"),
        ("chat/completions", {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ("chat/completions", {"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
    ],
)
async def test_a_wish_within_a_field_is_refused_by_its_path(
    post: Any, path: str, options: dict[str, Any], param: str
) -> None:
    response = await post(path, **options)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_an_unconstrained_request_has_wishes_for_a_form_passed_over_with_one_warning(
    post: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Training asks so: the draw must be the policy's own."""
    fields.say_unconstrained.cache_clear()
    wishes: dict[str, Any] = {
        "response_format": {"type": "json_object"},
        "tool_choice": "required",
        "guided_json": {"type": "object"},
        "verbosity": "low",
        "reasoning_effort": "low",
        "chat_template_kwargs": {"enable_thinking": False},
    }
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert ids(await post(tools=TOOLS, unconstrained=True, **wishes)) == ids(await post(tools=TOOLS))
    said = [record.getMessage().partition(":")[0] for record in caplog.records if "nothing constrains" in record.msg]
    assert sorted(said) == [
        "the agent asks for chat_template_kwargs.enable_thinking",
        "the agent asks for guided_json",
        "the agent asks for reasoning_effort",
        "the agent asks for response_format json_object",
        "the agent asks for tool_choice 'required'",
        "the agent asks for verbosity",
    ]


async def test_what_the_openai_agents_sdk_sends_of_itself_is_answered(post: Any) -> None:
    """Its default model has a reasoning effort and a verbosity, which every policy in its place is asked for."""
    default = pytest.importorskip("agents.models.default_models").get_default_model_settings()
    assert default.reasoning is not None
    assert default.verbosity is not None
    wishes = {
        "reasoning": default.reasoning.model_dump(),
        "text": {"verbosity": default.verbosity},
        "include": [],
        "store": True,
        "unconstrained": True,
    }
    assert ids(await post("responses", **wishes)) == ids(await post("responses"))


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize(
    "cut", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}, {"top_p": 1e-320}, {"temperature": 1e-30}]
)
async def test_a_cut_to_one_token_takes_the_likeliest(post: Any, path: str, cut: dict[str, float]) -> None:
    assert ids(await post(path, **cut)) == ids(await post(path, temperature=0)) != ids(await post(path))


async def test_top_k_and_min_p_draw_only_from_what_they_leave(engine: Engine, ask: Ask) -> None:
    answer = await ask(engine, HI, max_tokens=1, n=64, top_k=3, top_logprobs=20, temperature=2.0)
    choices = [choice["logprobs"]["content"][0] for choice in answer["choices"]]
    third = choices[0]["top_logprobs"][2]["logprob"]
    assert all(choice["logprob"] >= third - 1e-5 for choice in choices)
    assert len({choice["logprob"] for choice in choices}) > 1
    answer = await ask(engine, HI, max_tokens=1, n=64, min_p=0.3, top_logprobs=20, temperature=2.0)
    choices = [choice["logprobs"]["content"][0] for choice in answer["choices"]]
    best = choices[0]["top_logprobs"][0]["logprob"]
    assert all(choice["logprob"] >= best + -1.2040 for choice in choices), "ln 0.3"
    assert len({choice["logprob"] for choice in choices}) > 1


async def test_logprobs_are_those_of_the_whole_distribution_whatever_is_cut(engine: Engine, ask: Ask) -> None:
    whole = await ask(engine, HI, max_tokens=1, temperature=0, top_logprobs=1)
    cut = await ask(engine, HI, max_tokens=1, temperature=1.0, top_k=1)
    assert cut["choices"][0]["logprobs"]["content"][0]["logprob"] == pytest.approx(
        whole["choices"][0]["logprobs"]["content"][0]["logprob"], abs=1e-5
    )


async def test_a_stop_token_ends_the_answer(engine: Engine, ask: Ask, policy: PolicyModel, write: Write) -> None:
    one, two, three = (policy.tokenizer.encode(letter)[0] for letter in "abc")
    write([one, two, three])
    choice = (await ask(engine, HI, stop_token_ids=[two]))["choices"][0]
    assert (choice["token_ids"], choice["finish_reason"]) == ([one, two], "stop")


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
async def test_without_parallel_tool_calls_the_first_is_the_only_one(
    post: Any, policy: PolicyModel, write: Write, path: str
) -> None:
    call = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    tools = TOOLS if path != "responses" else [{"type": "function", **TOOLS[0]["function"]}]  # type: ignore[dict-item]
    for allowed, count in ((False, 1), (True, 2)):
        write([*policy.tokenizer.encode(call + call), policy.tokenizer.eos_token_id])
        limit = "max_output_tokens" if path == "responses" else "max_tokens"
        body = (await post(path, tools=tools, parallel_tool_calls=allowed, **{limit: 200})).json()
        calls = body["output"] if path == "responses" else body["choices"][0]["message"]["tool_calls"]
        assert len(calls) == count


THINKING = """\
{% if reasoning_effort %}Effort: {{ reasoning_effort }}
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


async def test_variables_of_the_template_are_set(tiny_model: Path, ask: Ask, client: httpx.AsyncClient) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), chat_template=THINKING))
    async with Engine(policy, EngineConfig(max_tokens=4)) as engine:

        async def prompt(**options: Any) -> str:
            answer = await ask(engine, HI, rollout="r", **options)
            return policy.tokenizer.decode(answer["prompt_token_ids"])

        plain = await prompt()
        assert await prompt(chat_template_kwargs={"enable_thinking": True}) == plain
        assert await prompt(chat_template_kwargs={"enable_thinking": False}) == f"{plain}<think>\n\n</think>\n\n"
        assert await prompt(reasoning_effort="low") == f"Effort: low\n{plain}"
        body = {"model": "policy", "input": "hi", "reasoning": {"effort": "low"}, "return_token_ids": True}
        response = (await client.post(f"{engine.base_url}/responses", json=body)).json()
        assert policy.tokenizer.decode(response["prompt_token_ids"]) == f"Effort: low\n{plain}"
        answer = await ask(engine, HI, rollout="r", chat_template_kwargs={"enable_thinking": False})
        more = [*HI, answer["choices"][0]["message"], *HI]
        before = engine.gateway.stats.continued
        await ask(engine, more, rollout="r", chat_template_kwargs={"enable_thinking": False})
        assert engine.gateway.stats.continued == before + 1
        await ask(engine, more, rollout="r")
        assert engine.gateway.stats.continued == before + 1, "other variables, another conversation"


async def test_a_text_keeps_the_bos_of_its_tokenizer_and_a_chat_has_it_once(
    tiny_model: Path, tmp_path: Path, client: httpx.AsyncClient, ask: Ask
) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(shutil.copytree(tiny_model, tmp_path / "model"))))
    bos = policy.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    policy.tokenizer.bos_token = "<|endoftext|>"
    policy.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    policy.tokenizer.chat_template = "{{ bos_token }}" + str(policy.tokenizer.chat_template)
    bare = policy.tokenizer.encode("once", add_special_tokens=False)
    async with Engine(policy, EngineConfig(max_tokens=2)) as engine:

        async def prompts(**fields: Any) -> list[list[int]]:
            body = {"model": "policy", "return_token_ids": True, **fields}
            response = await client.post(f"{engine.base_url}/completions", json=body)
            return [choice["prompt_token_ids"] for choice in response.json()["choices"]]

        assert await prompts(prompt=["once", "once"]) == [[bos, *bare], [bos, *bare]]
        assert await prompts(prompt="once", add_special_tokens=False) == [bare]
        assert await prompts(prompt=bare) == [bare]
        chat = (await ask(engine, HI))["prompt_token_ids"]
    assert (chat[0], chat.count(bos)) == (bos, 1)
