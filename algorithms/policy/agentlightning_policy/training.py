"""What every algorithm that trains the policy's weights does around its learning: load or restore, serve, evaluate,
checkpoint, save."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from agentlightning.algorithm import Run
from agentlightning.config import NonNegativeInt, PositiveInt
from agentlightning.errors import AlgorithmError, PolicyError
from agentlightning.records import Policy, TrainingRow
from agentlightning.sampler import MAX_TEMPERATURE
from agentlightning_gateway.chat import Chat, template_shows
from agentlightning_gateway.protocol import ApiError
from agentlightning_policy.batches import Batch, make_batches
from agentlightning_policy.config import EngineConfig, ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer, OptimizerConfig


class EvaluateConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How the held-out tasks are run before and after training, and every ``every`` steps (0: never between).

    Each task is run ``samples`` times at the training temperature (variant ``sampled``) and, with ``greedy``,
    once at temperature 0 (variant ``greedy``).
    """

    samples: PositiveInt = 1
    greedy: bool = True
    every: NonNegativeInt = 0


# At 0 the rollouts of a group are all alike, and above 10 they are noise.
Temperature = Annotated[float, msgspec.Meta(gt=0, le=MAX_TEMPERATURE)]


class TrainingConfig(OptimizerConfig, kw_only=True, forbid_unknown_fields=True):
    """What a run that trains weights can be told, whatever the algorithm; the optimizer's fields stand beside these.

    A step takes ``batch_tasks`` tasks and runs each ``group_size`` times at ``temperature``, then goes over
    what came of it ``epochs`` times, each time in ``mini_batches`` optimizer steps. A micro-batch holds at most
    ``max_tokens_per_micro_batch`` distinct tokens (shared prefixes count once): the bound on memory. A
    checkpoint is made every ``checkpoint_every`` steps and at the end (0: never).
    """

    model: ModelConfig
    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    steps: PositiveInt = 100
    batch_tasks: PositiveInt = 8
    group_size: PositiveInt = 8
    temperature: Temperature = 1.0
    epochs: PositiveInt = 1
    mini_batches: PositiveInt = 1
    max_tokens_per_micro_batch: PositiveInt = 2048
    checkpoint_every: NonNegativeInt = 10
    evaluate: EvaluateConfig = msgspec.field(default_factory=EvaluateConfig)


UNCUT = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "unconstrained": True,
}
"""Set on every redirected call, whatever the agent asks for: tokens are drawn from the policy's own distribution, which
is the one that is trained, and whose log-probabilities are recorded."""

_OTHER_TEMPLATE = "give another as model.chat_template (a Jinja file, or hermes-tools for a model that writes ChatML)"


class Training:
    """The policy of one run, its optimizer, and how many steps are done already."""

    def __init__(self, config: TrainingConfig, run: Run, policy: PolicyModel) -> None:
        self.config = config
        self.run = run
        self.policy = policy
        self.optimizer = Optimizer(policy, config, config.steps * config.epochs * config.mini_batches)
        self.done = 0

    @classmethod
    async def begin(cls, config: TrainingConfig, run: Run) -> Training:
        """Loads the policy, as the run's last checkpoint left it where there is one.

        Raises `PolicyError` where it cannot be loaded or its chat template shows no messages, `AlgorithmError` where
        the checkpoint is another's.
        """
        run.phase("loading the model")
        training = cls(config, run, await asyncio.to_thread(_load, config.model, run.seed))
        if run.restored is not None:
            if run.restored.path is None:
                raise AlgorithmError(f"the checkpoint of step {run.restored.step} holds no weights: start a new run")
            await asyncio.to_thread(training.optimizer.load, Path(run.restored.path))
            training.done = run.restored.step
        return training

    def engine(self) -> Engine:
        """What serves the policy; its draws depend on the run's seed."""
        settings = self.config.engine
        return Engine(self.policy, msgspec.structs.replace(settings, seed=settings.seed + self.run.seed))

    async def publish(self, engine: Engine) -> None:
        """Makes the present weights those that next rollouts use."""
        await self.run.publish(self._resource(engine))

    async def evaluate(self, engine: Engine, *, step: int) -> None:
        """Runs the held-out tasks, where there are any, sampled and greedy, after ``step`` training steps."""
        if not self.run.held_out or step < self.done:  # or it was evaluated before the run was cut off
            return
        wanted, resource = self.config.evaluate, self._resource(engine)
        await self.run.evaluate(step=step, variant="sampled", resources=[resource], samples=wanted.samples)
        if wanted.greedy:
            await self.run.evaluate(step=step, variant="greedy", resources=[resource.sampled_with(temperature=0.0)])

    async def after_step(self, engine: Engine, step: int, **state: Any) -> None:
        """Checkpoint and evaluation, where it is time for one. ``state`` is what else the algorithm needs to go on:
        plain values, which ``run.restored.state`` holds after a resume."""
        every, last = self.config.checkpoint_every, step == self.config.steps
        if every and (last or step % every == 0):
            await self.run.checkpoint(step, {"policy_version": self.policy.version, **state}, self.optimizer.save)
        if self.config.evaluate.every and step % self.config.evaluate.every == 0 and not last:
            await self.evaluate(engine, step=step)

    @contextmanager
    def learning(self, step: int) -> Iterator[None]:
        """Training mode (adapters may have dropout), with random draws that depend on the run's seed and the step."""
        self.run.phase("update")
        device = self.policy.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.run.seed * 1_000_003 + step)
            self.policy.module.train()
            try:
                yield
            finally:
                self.policy.module.eval()
                _return_freed_memory()

    def micro_batches(self, sequences: Sequence[TrainingRow], what: str = "update") -> Iterator[Batch]:
        """The sequences in micro-batches; the run is told ``what`` is done with them, and how far it is."""
        batches = make_batches(sequences, self.config.max_tokens_per_micro_batch)
        for place, batch in enumerate(batches):
            self.run.phase(what, done=place, total=len(batches))
            yield batch

    async def save(self) -> None:
        """Writes the trained model as a plain Hugging Face folder: the run's result."""
        self.run.phase("saving the model")
        folder = await asyncio.to_thread(self.policy.save, self.run.directory / "model")
        self.run.result("model", str(folder))

    def _resource(self, engine: Engine) -> Policy:
        return engine.resource("policy", temperature=self.config.temperature, **UNCUT)


def _return_freed_memory() -> None:
    """glibc keeps what torch frees, in an arena of each thread: gigabytes, after a few steps on a CPU."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _load(config: ModelConfig, seed: int) -> PolicyModel:
    torch.manual_seed(seed)
    policy = PolicyModel.load(config)
    try:
        shows = template_shows(Chat(policy.tokenizer, ()))
    except ApiError as error:
        raise PolicyError(f"the chat template of {config.path} takes no chat: {error}; {_OTHER_TEMPLATE}") from error
    if not shows.messages:
        raise PolicyError(
            f"the chat template of {config.path} shows the model no messages, so every prompt is the same; "
            f"{_OTHER_TEMPLATE}"
        )
    return policy
