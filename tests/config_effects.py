"""What the tests of every algorithm that trains weights share: a short run, and all of it that can be measured.

A key of a config changes something of that, or is refused.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import openai
from drawn_run import DrawnRun
from msgspec.inspect import DictType, StructType, Type, UnionType, type_info
from transformers import AutoModelForCausalLM

from agentlightning.algorithm import Run
from agentlightning.policies import Policies
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.records import Policy, Task
from agentlightning.training_rows import Group

BASE: dict[str, Any] = {
    "model.path": "a model",
    "steps": 2,
    "batch_tasks": 2,
    "group_size": 4,
    "informative_groups": 3,
    "max_tasks": 4,
    "lr": 1e-3,
    "checkpoint_every": 2,
    "validate.every": 1,
    "validate.tasks": 1,
    "model.device": "cpu",
    "model.lora.rank": 4,
    "engine.max_tokens": 6,
}
CHANGED: dict[str, Any] = {
    "backend": "bandit:BanditBackend",
    "steps": 3,
    "batch_tasks": 1,
    "group_size": 3,
    "informative_groups": 1,
    "max_tasks": 3,
    "temperature": 0.5,
    "epochs": 2,
    "mini_batches": 2,
    "checkpoint_every": 1,
    "evaluate.samples": 2,
    "evaluate.greedy": False,
    "evaluate.every": 1,
    "validate.every": 2,
    "validate.tasks": 2,
    "validate.samples": 2,
    "validate.patience": 1,
    "lr": 1e-2,
    "warmup": 2,
    "schedule": "linear",
    "weight_decay": 0.5,
    "betas": [0.5, 0.5],
    "max_grad_norm": 1e-3,
    "max_tokens_per_micro_batch": 1,
    "model.path": "another model",
    "model.dtype": "bfloat16",
    "model.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    "model.device": "nowhere",
    "model.lora.rank": 2,
    "model.lora.alpha": 4.0,
    "model.lora.dropout": 0.5,
    "model.lora.targets": ["q_proj"],
    "engine.host": "nowhere.invalid",
    "engine.port": "a free one",
    "engine.seed": 5,
    "engine.max_tokens": 3,
    "engine.name": "another",
    "engine.max_context": 8,
    "engine.cache_memory": 0,
}
ELSEWHERE = {
    "policies": "tests/core/test_several_policies.py: each has agents, credit, weights and numbers of its own",
    "gradient_checkpointing": "tests/policy/test_backend.py: it changes what an update holds, and no number",
    "engine.max_batch": "tests/policy/test_numerics.py: it changes how long answers take, and no token",
    "engine.pack_weights": "tests/policy/test_layers.py: it changes how long answers take, and no token",
    "engine.tool_format": "tests/gateway/test_tool_formats.py: it changes how calls are read, and no token",
}
REFUSED = ("backend", "model.device", "engine.host")
"""Keys whose changed value is one that cannot be."""


class Measured(PolicyGradient):
    """Before an algorithm: asks the served policy the same thing twice, and keeps what it says and what that took."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.measured: list[Any] = []

    async def begin(self, run: Run, policies: Policies) -> None:
        await super().begin(run, policies)
        self._policies = policies

    async def check(self, run: Run) -> None:
        (backend,) = self._policies.backends.values()
        policy = await backend.publish()
        sampling = {**policy.sampling, "temperature": self.config.temperature, "return_token_ids": True}
        url, port = urlparse(policy.base_url), self.config.engine.port
        self.measured += [url.hostname, url.port == port, policy.model]
        for _ in range(2):
            async with openai.AsyncOpenAI(base_url=policy.base_url, api_key="k", max_retries=0) as client:
                try:
                    answer = await client.chat.completions.create(
                        model=policy.model, messages=[{"role": "user", "content": "23 + 48?"}], extra_body=sampling
                    )
                except openai.APIStatusError as error:
                    self.measured.append(error.message)
                else:
                    extra: Any = answer.model_extra
                    self.measured += [extra["prompt_token_ids"], answer.choices[0].model_extra]
        assert backend.engine is not None
        self.measured.append(backend.engine.sampler.stats.computed_tokens)


class Asked(DrawnRun):
    """Notes which tasks each collection takes, how often. One is always wrong. Its validations get worse before they
    get better."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.tasks = [Task(id=f"task{place}", input="") for place in range(4)]
        self.drawn = self._draw_one
        self.validations = {0: 0.5, 1: 0.4, 2: 0.9, 3: 0.95}

    def _draw_one(self, task: Task, step: int) -> Group:
        drawn = self._draw(task, step)
        if task.id == "task2":
            for member in drawn.rollouts:
                member.rollout.rewards[0].value = 0.0
        return drawn

    async def collect(self, tasks: Sequence[Task], *, group_size: int = 1, step: int, **_: Any) -> AsyncIterator[Group]:
        self.events.append(f"{[task.id for task in tasks]} x{group_size}")
        async for group in super().collect(tasks, group_size=group_size, step=step):
            yield group


def section(keys: dict[str, Any], values: dict[str, str | int]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in keys.items():
        *parents, last = path.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = values.get(value, value) if isinstance(value, str) else value
    return nested


async def measure(
    algorithm: type[PolicyGradient], folder: Path, keys: dict[str, Any], values: dict[str, str | int]
) -> str:
    """All that a run did, in one text; or what it was refused for."""
    run = Asked(folder)
    try:
        watched = type("Watched", (Measured, algorithm), {}).from_section(section(keys, values))
        await watched.run(run)
    except Exception as error:  # noqa: BLE001 - to be refused is an effect
        return f"{type(error).__name__}: {error}"
    logged = {step: {k: v for k, v in of.items() if "seconds" not in k} for step, of in run.logged.items()}
    published = [policy for policy in run.published if isinstance(policy, Policy)]
    state = AutoModelForCausalLM.from_pretrained(run.results["model"]).float().state_dict()
    weights = hashlib.sha256(b"".join(weight.contiguous().numpy().tobytes() for weight in state.values())).hexdigest()
    steps = [checkpoint.step for checkpoint in run.checkpoints]
    sampling = [(policy.version, policy.sampling) for policy in published]
    return repr((run.events, run.phases, logged, sampling, steps, weights, watched.measured))


def keys_of_config(algorithm: type[PolicyGradient]) -> list[str]:
    """Every key of an algorithm's config, with the paths of those in its sections."""
    return sorted(set(_keys_of(type_info(algorithm.config_type({})))))


def _keys_of(kind: Type, path: tuple[str, ...] = ()) -> Iterator[str]:
    for part in kind.types if isinstance(kind, UnionType) else (kind,):
        if isinstance(part, StructType):
            for field in part.fields:
                yield from _keys_of(field.type, (*path, field.encode_name))
        elif part == kind or isinstance(part, DictType):
            yield ".".join(path)
    if isinstance(kind, UnionType) and not any(isinstance(part, StructType) for part in kind.types):
        yield ".".join(path)


def values_for(tiny_model_of: Callable[[str], Path]) -> dict[str, str | int]:
    """What stands for the names in `BASE` and `CHANGED` on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    return {"a model": str(tiny_model_of("llama")), "another model": str(tiny_model_of("qwen2")), "a free one": port}


async def check_key(
    algorithm: type[PolicyGradient],
    key: str,
    base: dict[str, Any],
    changed: dict[str, Any],
    *,
    folder: Path,
    values: dict[str, str | int],
    measured: dict[str, str],
    refused: Sequence[str] = REFUSED,
) -> None:
    """Fails where ``key`` makes no difference to the run that ``base`` is, which is kept in ``measured``."""
    if not measured:
        measured["run"] = await measure(algorithm, folder / "base", base, values)
        assert measured["run"] == await measure(algorithm, folder / "again", base, values), (
            "what is measured is no noise"
        )
        assert measured["run"].startswith("("), measured["run"]
    found = await measure(algorithm, folder / "changed", {**base, key: changed[key]}, values)
    assert found != measured["run"]
    assert found.startswith("(") == (key not in refused), found
