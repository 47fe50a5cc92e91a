"""Token in, token out: follow-up calls continue from the tokens that were sampled."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentlightning_policy.engine import Engine
from agentlightning_policy.model import ModelConfig, PolicyModel

Ask = Callable[..., Awaitable[Any]]
Write = Callable[[list[int]], None]
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}]
START = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "23 + 48?"}]
CALL = '<tool_call>\n{"name": "calculator", "arguments": {"a": 23, "b": [48, 1]}}\n</tool_call>'


def awkward(policy: PolicyModel, text: str) -> list[int]:
    """Ids that decode to ``text`` and that encoding it would not give: one token per byte."""
    ids = [id for letter in text for id in policy.tokenizer.encode(letter)]
    assert policy.tokenizer.decode(ids) == text
    assert policy.tokenizer.encode(text) != ids
    return ids


def after(policy: PolicyModel, answer: Any, text: str) -> list[int]:
    """The prompt that must follow an answer: its very tokens, then ``text``."""
    return [*answer["prompt_token_ids"], *answer["choices"][0]["token_ids"], *policy.tokenizer.encode(text)]


ENDED_TURN = "\n<|im_start|>user\n<tool_response>\n71\n</tool_response><|im_end|>\n<|im_start|>assistant\n"


async def test_tokens_that_encode_otherwise_are_continued_as_they_are(
    engine: Engine, policy: PolicyModel, ask: Ask, write: Write
) -> None:
    write([*awkward(policy, CALL), policy.tokenizer.eos_token_id])
    first = await ask(engine, START, tools=TOOLS, rollout="r", max_tokens=200)
    message = first["choices"][0]["message"]
    assert message["tool_calls"]
    result = {"role": "tool", "content": "71", "tool_call_id": message["tool_calls"][0]["id"]}
    second = await ask(engine, [*START, message, result], tools=TOOLS, rollout="r")
    assert second["prompt_token_ids"] == after(policy, first, ENDED_TURN)
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (1, 1)


def reordered(message: dict[str, Any]) -> dict[str, Any]:
    call = message["tool_calls"][0]
    function = {**call["function"], "arguments": '{"b":[48,1],"a":23}'}
    return {"role": "assistant", "content": "", "name": "solver", "tool_calls": [{**call, "function": function}]}


def in_parts(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": ""}], "refusal": None}


@pytest.mark.parametrize("given_back", [reordered, in_parts])
async def test_an_answer_that_a_framework_wrote_otherwise_is_still_that_answer(
    engine: Engine,
    policy: PolicyModel,
    ask: Ask,
    write: Write,
    given_back: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    write([*awkward(policy, CALL), policy.tokenizer.eos_token_id])
    first = await ask(engine, START, tools=TOOLS, rollout="r", max_tokens=200)
    message = given_back(first["choices"][0]["message"])
    result = {"role": "tool", "content": "71", "tool_call_id": message["tool_calls"][0]["id"]}
    second = await ask(engine, [*START, message, result], tools=TOOLS, rollout="r")
    assert second["prompt_token_ids"] == after(policy, first, ENDED_TURN)


NEXT = {"role": "user", "content": "go on"}
NEXT_TEXT = "<|im_start|>user\ngo on<|im_end|>\n<|im_start|>assistant\n"


async def test_a_turn_cut_by_its_length_is_ended_by_the_template(
    engine: Engine, policy: PolicyModel, ask: Ask, write: Write
) -> None:
    write(awkward(policy, "answer"))
    first = await ask(engine, START, rollout="r", max_tokens=4)
    assert first["choices"][0]["finish_reason"] == "length"
    second = await ask(engine, [*START, first["choices"][0]["message"], NEXT], rollout="r")
    assert second["prompt_token_ids"] == after(policy, first, "<|im_end|>\n" + NEXT_TEXT)


async def test_a_turn_cut_by_a_stop_string_is_ended_by_the_template(
    engine: Engine, policy: PolicyModel, ask: Ask, write: Write
) -> None:
    write(awkward(policy, "the answer"))
    first = await ask(engine, START, rollout="r", stop="ans")
    assert first["choices"][0]["message"]["content"] == "the "
    second = await ask(engine, [*START, first["choices"][0]["message"], NEXT], rollout="r")
    assert second["prompt_token_ids"] == after(policy, first, "<|im_end|>\n" + NEXT_TEXT)


async def test_an_edited_history_is_rendered_anew(engine: Engine, policy: PolicyModel, ask: Ask, write: Write) -> None:
    write([*awkward(policy, "answer"), policy.tokenizer.eos_token_id])
    first = await ask(engine, START, rollout="r")
    answered = first["choices"][0]["message"]
    edited = [{**START[0], "content": "Be brief."}, START[1], answered, NEXT]
    second = await ask(engine, edited, rollout="r")
    expected = policy.tokenizer.apply_chat_template(edited, add_generation_prompt=True)["input_ids"]
    assert second["prompt_token_ids"] == list(expected)
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (2, 0)


async def test_other_rollouts_do_not_continue_it(engine: Engine, ask: Ask) -> None:
    first = await ask(engine, START, rollout="r")
    for rollout in ("other", None):
        await ask(engine, [*START, first["choices"][0]["message"], NEXT], rollout=rollout)
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (3, 0)


async def test_interleaved_agents_each_continue_their_own(engine: Engine, policy: PolicyModel, ask: Ask) -> None:
    chats = [[{"role": "system", "content": f"You are agent {name}."}, START[1]] for name in ("a", "b")]
    answers: list[Any] = [None, None]
    for turn in range(3):
        for agent in (0, 1):
            before = answers[agent]
            answers[agent] = await ask(engine, chats[agent], rollout="r")
            if turn:
                closing = "" if before["choices"][0]["finish_reason"] == "stop" else "<|im_end|>"
                assert answers[agent]["prompt_token_ids"] == after(policy, before, f"{closing}\n{NEXT_TEXT}")
            chats[agent] = [*chats[agent], answers[agent]["choices"][0]["message"], NEXT]
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (2, 4)


async def test_branches_continue_the_longest_that_fits(engine: Engine, policy: PolicyModel, ask: Ask) -> None:
    first = await ask(engine, START, rollout="r")
    longer = [*START, first["choices"][0]["message"], NEXT]
    await ask(engine, longer, rollout="r")
    branch = [*longer[:-1], {"role": "user", "content": "or else?"}]
    other = await ask(engine, branch, rollout="r")
    written = first["prompt_token_ids"] + first["choices"][0]["token_ids"]
    assert other["prompt_token_ids"][: len(written)] == written
    assert engine.gateway.stats.continued == 2


async def test_a_template_that_shows_past_answers_otherwise_is_continued_too(
    tiny_model: Path, tmp_path: Path, ask: Ask
) -> None:
    """Some templates cut reasoning out of every answer but the last."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    policy = PolicyModel.load(ModelConfig(path=str(folder), chat_template=template))
    async with Engine(policy) as engine:
        first = await ask(engine, START, rollout="r", max_tokens=6, temperature=0)
        second = await ask(engine, [*START, first["choices"][0]["message"], NEXT], rollout="r")
    closing = "" if first["choices"][0]["finish_reason"] == "stop" else "<|im_end|>"
    assert second["prompt_token_ids"] == after(policy, first, f"{closing}\n{NEXT_TEXT}")
