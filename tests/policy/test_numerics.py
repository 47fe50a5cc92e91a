"""What the engine samples, and with which log-probability, is what plain transformers computes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import LoraConfig, ModelConfig, PolicyModel
from agentlightning_policy.sampler import attention, cache, scheduler

Ask = Callable[..., Awaitable[Any]]
SYSTEM = {"role": "system", "content": "You are a helpful assistant. " * 8}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assert_exact(module: torch.nn.Module, answer: Any, temperature: float = 1.0) -> None:
    """The answer's log-probabilities are those of one plain forward pass over prompt and answer."""
    prompt = answer["prompt_token_ids"]
    for choice in answer["choices"]:
        ids = torch.tensor([prompt + choice["token_ids"]])
        with torch.no_grad():
            logits = module(ids).logits[0, len(prompt) - 1 : -1].float() / temperature
        expected = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0]
        given = torch.tensor([token["logprob"] for token in choice["logprobs"]["content"]])
        torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("worth", [1, scheduler.WORTH_SHARING], ids=["all shared", "as usual"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
async def test_greedy_answers_equal_those_of_transformers(
    tiny_model_of: Callable[[str], Path], family: str, worth: int, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WORTH_SHARING", worth)
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model_of(family))))
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_of(family))
    prompts = [[SYSTEM, user("How many apples? " * size)] for size in (1, 3, 3, 9, 20)]
    prompts += [[user("hi")], [SYSTEM, user("How many apples? How many pears?")]]
    async with Engine(policy) as engine:
        answers = await asyncio.gather(*(ask(engine, prompt, temperature=0, max_tokens=24) for prompt in prompts))
    for answer in answers:
        ids = torch.tensor([answer["prompt_token_ids"]])
        expected = plain.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :].tolist()
        assert answer["choices"][0]["token_ids"] == expected
        assert_exact(plain, answer)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("worth", [1, scheduler.WORTH_SHARING], ids=["all shared", "as usual"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
async def test_logprobs_of_rollouts_of_several_turns_are_exact(
    tiny_model_of: Callable[[str], Path],
    family: str,
    worth: int,
    fused: bool,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where torch has no fused kernels for it: on a GPU."""
    monkeypatch.setattr(scheduler, "WORTH_SHARING", worth)
    monkeypatch.setattr(attention, "has_flash_kernels", lambda: fused)
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model_of(family))))

    async def rollout(engine: Engine, number: int) -> list[Any]:
        messages = [SYSTEM, user(f"Tom has {number % 3} apples.")]
        answers = []
        for turn in range(3):
            options = {"temperature": 0.7, "max_tokens": 5 + 7 * (number % 4), "rollout": f"r{number}"}
            answers.append(await ask(engine, messages, **options))
            messages = [
                *messages,
                answers[-1]["choices"][0]["message"],
                user(f"And in turn {turn}?" * (number % 5 + 1)),
            ]
        return answers

    async with Engine(policy, EngineConfig(max_batch=6)) as engine:
        rollouts = await asyncio.gather(*(rollout(engine, number) for number in range(12)))
        assert engine.gateway.stats.continued == 24
        assert engine.sampler.stats.computed_tokens < engine.sampler.stats.prompt_tokens / 2
    for answers in rollouts:
        for answer in answers:
            assert_exact(policy.module, answer, temperature=0.7)
        for before, after in itertools.pairwise(answers):
            written = before["prompt_token_ids"] + before["choices"][0]["token_ids"]
            assert after["prompt_token_ids"][: len(written)] == written


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("tail", [1, 4, 16])
@pytest.mark.parametrize("family", ["llama", "mistral"])
async def test_a_row_whose_tail_has_grown_too_long_goes_on_with_a_new_one(
    tiny_model_of: Callable[[str], Path],
    family: str,
    tail: int,
    fused: bool,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "has_flash_kernels", lambda: fused)
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model_of(family))))
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_of(family))
    prompts = [[SYSTEM, user("How many apples? " * size)] for size in (1, 3, 3, 9, 20)] + [[user("hi")]]
    async with Engine(policy) as engine:
        monkeypatch.setattr(engine.sampler._scheduler, "_longest_tail", tail)
        answers = await asyncio.gather(*(ask(engine, prompt, temperature=0, max_tokens=40) for prompt in prompts))
        again = await ask(engine, prompts[0], temperature=0, max_tokens=40)
    assert engine.sampler._scheduler._cache.keys.shape[3] == cache.GROWTH
    tree = engine.sampler._scheduler._tree
    assert all(node.rows == 0 and node.segment is not None for node in tree._nodes())
    for answer in answers:
        ids = torch.tensor([answer["prompt_token_ids"]])
        expected = plain.generate(ids, do_sample=False, max_new_tokens=40)[0, ids.shape[1] :].tolist()
        assert answer["choices"][0]["token_ids"] == expected
        assert_exact(plain, answer)
    assert again["choices"][0]["token_ids"] == answers[0]["choices"][0]["token_ids"]


async def test_where_running_rows_hold_much_the_next_ones_wait(
    policy: PolicyModel, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Engine(policy, EngineConfig(cache_memory=0)) as engine:
        monkeypatch.setattr(engine.sampler._scheduler, "_room", 40)
        rows: list[int] = []
        leave = engine.sampler._scheduler._leave
        monkeypatch.setattr(
            engine.sampler._scheduler,
            "_leave",
            lambda index: (rows.append(len(engine.sampler._scheduler._rows)), leave(index)),
        )
        prompts = [[user(f"{number} apples " * 20)] for number in range(6)]
        answers = await asyncio.gather(*(ask(engine, prompt, max_tokens=8) for prompt in prompts))
    for answer in answers:
        assert_exact(policy.module, answer)
    assert len(rows) == 6
    assert max(rows) == 1


async def test_adapters_are_served_too(tiny_model: Path, ask: Ask) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=LoraConfig(rank=4, alpha=8)))
    with policy.updating(), torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(std=0.1)
    async with Engine(policy) as engine:
        assert_exact(policy.module, await ask(engine, [user("hi")], max_tokens=12))


async def test_an_eviction_changes_nothing(policy: PolicyModel, ask: Ask) -> None:
    async with Engine(policy, EngineConfig(cache_memory=0)) as engine:
        for text in ("one", "two", "one"):
            assert_exact(policy.module, await ask(engine, [SYSTEM, user(text)], max_tokens=12))
        assert engine.sampler.stats.computed_tokens == engine.sampler.stats.prompt_tokens


async def test_new_weights_answer_with_their_own_logprobs(policy: PolicyModel, engine: Engine, ask: Ask) -> None:
    first = await ask(engine, [SYSTEM, user("hi")], rollout="r")
    assert first["policy_version"] == 0
    with policy.updating(), torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    again = await ask(engine, [SYSTEM, user("hi")], rollout="r")
    assert again["policy_version"] == 1
    assert again["prompt_token_ids"] == first["prompt_token_ids"]
    assert_exact(policy.module, again)


async def test_an_answer_in_the_making_goes_on_under_new_weights(
    policy: PolicyModel, engine: Engine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first tokens are the old weights' own, the later ones the new weights'."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    draw = scheduler.draw
    drawn = 0

    def change_after_five(*arguments: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 5:
            loop.call_soon_threadsafe(changed.set)
            # the update waits for this step, and the next step for the update
            threading.Thread(target=update).start()
            waiting.wait()
        return draw(*arguments)

    waiting = threading.Event()
    wait_for = policy._turn.wait_for

    def noted(ready: Callable[[], bool]) -> bool:
        waiting.set()
        return wait_for(ready)

    def update() -> None:
        monkeypatch.setattr(policy._turn, "wait_for", noted)
        with policy.updating(), torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))

    old = {name: weight.clone() for name, weight in policy.state().items()}
    monkeypatch.setattr(scheduler, "draw", change_after_five)
    answer = await ask(engine, [user("hi")], max_tokens=12, stop=None, seed=4)
    ids = torch.tensor([answer["prompt_token_ids"] + answer["choices"][0]["token_ids"]])
    given = torch.tensor([token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]])
    size = len(given)
    assert size > 5

    def expected() -> torch.Tensor:
        with torch.no_grad():
            logprobs = torch.log_softmax(policy.module(ids).logits[0, -size - 1 : -1], -1)
        return logprobs.gather(1, ids[0, -size:, None])[:, 0]

    new = expected()
    policy.load_state(old)
    torch.testing.assert_close(given[:5], expected()[:5], atol=1e-4, rtol=0)
    torch.testing.assert_close(given[5:], new[5:], atol=1e-4, rtol=0)
    assert answer["policy_version"] == 0


async def test_sampled_tokens_follow_the_distribution(policy: PolicyModel, engine: Engine, ask: Ask) -> None:
    answer = await ask(engine, [user("hi")], max_tokens=1, n=128, temperature=0.8)
    more = [await ask(engine, [user("hi")], max_tokens=1, n=128, temperature=0.8) for _ in range(15)]
    with torch.no_grad():
        logits = policy.module(torch.tensor([answer["prompt_token_ids"]])).logits[0, -1]
    probabilities = torch.softmax(logits / 0.8, -1)
    drawn = torch.tensor([choice["token_ids"][0] for each in [answer, *more] for choice in each["choices"]])
    counts = torch.bincount(drawn, minlength=len(probabilities)).float()
    expected = probabilities * len(drawn)
    likely = expected >= 5
    chi_square = (((counts - expected) ** 2 / expected)[likely]).sum()
    # the seeds are fixed, so this is no matter of luck; far off the mean means a wrong distribution
    assert chi_square < 2 * likely.sum()


async def test_top_p_draws_only_from_the_nucleus(policy: PolicyModel, engine: Engine, ask: Ask) -> None:
    answer = await ask(engine, [user("hi")], max_tokens=1, n=64, top_p=0.2)
    with torch.no_grad():
        logits = policy.module(torch.tensor([answer["prompt_token_ids"]])).logits[0, -1]
    ordered, order = torch.softmax(logits, -1).sort(descending=True)
    nucleus = set(order[ordered.cumsum(0) - ordered < 0.2].tolist())
    drawn = {choice["token_ids"][0] for choice in answer["choices"]}
    assert drawn <= nucleus
    assert len(drawn) > 1
    assert_exact(policy.module, answer)
