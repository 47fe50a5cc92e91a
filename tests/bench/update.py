"""One update of the weights, beside TRL's, in one process on identical rows: 8 groups of 8 rollouts, a prompt of 200
tokens, answers of 40, in float32, all from this repository's README. Both take the loss, its gradients and an AdamW
step, in turns.

``python tests/bench/update.py [--pairs 5]``; a quarter of an hour on two cores. The model is the calculator example's,
which its ``prepare.py`` makes. Needs ``trl==1.16.*``; without it only this library's time and memory are measured.
Fails where the gradient of a few rows is further than 1e-5 of its norm from the same in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentlightning.loss import LossConfig
from agentlightning.training_rows import TrainingRow
from agentlightning_policy.config import ModelConfig, OptimizerConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer
from agentlightning_policy.update import PolicyUpdater

ROOT = Path(__file__).parents[2]
MODEL, README = ROOT / "examples" / "calculator" / "model", ROOT / "README.md"
GROUPS, SIZE, PROMPT, ANSWER = 8, 8, 200, 40
LR = 1e-6
TRL_BATCH = 8
"""Rows that TRL computes at once."""
CLOSE = 1e-5


def make_groups(
    groups: int = GROUPS, size: int = SIZE, prompt: int = PROMPT, answer: int = ANSWER, turns: int = 1
) -> list[list[TrainingRow]]:
    """Groups of rollouts cut from a text: one prompt each, ``turns`` answers, as many tokens of a tool's between."""
    rng = np.random.default_rng(0)
    text = np.array(AutoTokenizer.from_pretrained(MODEL)(README.read_text())["input_ids"])

    def cut(length: int) -> np.ndarray:
        start = int(rng.integers(0, len(text) - length))
        return text[start : start + length]

    made = []
    for group in range(groups):
        shared = cut(prompt)
        rows = []
        for member in range(size):
            length = answer * (2 * turns - 1)
            mask = np.concatenate([np.zeros(prompt, bool), np.arange(length) // answer % 2 == 0])
            rows.append(
                TrainingRow(
                    rollout_id=f"{group}.{member}",
                    policy="policy",
                    token_ids=np.concatenate([shared, cut(length)]).astype(np.int32),
                    mask=mask,
                    logprobs=np.zeros(len(mask), np.float32),
                    advantages=np.where(mask, rng.normal(), 0).astype(np.float32),
                )
            )
        made.append(rows)
    return made


class Ours:
    """This library's update, on weights of its own."""

    def __init__(self) -> None:
        self.policy = PolicyModel.load(ModelConfig(path=str(MODEL), device="cpu"))
        self.optimizer = Optimizer(self.policy, OptimizerConfig(lr=LR), total_steps=100)
        self.updater = PolicyUpdater(self.policy, self.optimizer, seed=0, max_tokens=2048, phase=lambda *_, **__: None)

    def update(self, groups: list[list[TrainingRow]]) -> float:
        """Returns the loss."""
        return self.updater.update(groups, LossConfig(), step=1)["loss"]

    def gradients(self, groups: list[list[TrainingRow]]) -> dict[str, torch.Tensor]:
        """The gradients in place of a step."""
        found: dict[str, torch.Tensor] = {}

        def keep() -> float:
            found.update({name: weight.grad for name, weight in self.policy.module.named_parameters()})
            self.policy.module.zero_grad(set_to_none=True)
            return 0.0

        step, self.optimizer.step = self.optimizer.step, keep  # type: ignore[method-assign]
        try:
            self.update(groups)
        finally:
            self.optimizer.step = step  # type: ignore[method-assign]
        return found


class Theirs:
    """TRL's, by its own `GRPOTrainer`, in micro-batches of `TRL_BATCH` rows."""

    def __init__(self, folder: str) -> None:
        import trl
        from datasets import Dataset

        config = trl.GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_dropout=True,
            per_device_train_batch_size=TRL_BATCH,
            gradient_accumulation_steps=1,
            num_generations=TRL_BATCH,
            max_completion_length=ANSWER,
            gradient_checkpointing=False,
        )
        self.trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(MODEL, padding_side="left"),
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "none"}] * TRL_BATCH),
        )
        self.trainer.current_gradient_accumulation_steps = 1
        self.module = self.trainer.model.train()
        self.adamw = torch.optim.AdamW(self.module.parameters(), lr=LR, weight_decay=0.0)

    def backward(self, groups: list[list[TrainingRow]]) -> float:
        """Leaves the gradients on the weights; returns the loss."""
        rows = [row for group in groups for row in group]
        total = float(sum(row.trained_tokens for row in rows))
        loss = 0.0
        for start in range(0, len(rows), TRL_BATCH):
            part = rows[start : start + TRL_BATCH]
            ids = torch.from_numpy(np.stack([row.token_ids for row in part]).astype(np.int64))
            inputs = {
                "prompt_ids": ids[:, :PROMPT],
                "prompt_mask": torch.ones_like(ids[:, :PROMPT]),
                "completion_ids": ids[:, PROMPT:],
                "completion_mask": torch.ones_like(ids[:, PROMPT:]),
                "advantages": torch.tensor([row.advantages[-1] for row in part]),
                "num_items_in_batch": torch.tensor(total),
            }
            share = self.trainer._compute_loss(self.module, inputs)
            share.backward()
            loss += float(share.detach())
        return loss

    def update(self, groups: list[list[TrainingRow]]) -> float:
        """Returns the loss."""
        loss = self.backward(groups)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.adamw.step()
        self.adamw.zero_grad()
        return loss

    def gradients(self, groups: list[list[TrainingRow]]) -> dict[str, torch.Tensor]:
        """The gradients, and no step."""
        self.backward(groups)
        found = {name: weight.grad for name, weight in self.module.named_parameters()}
        self.module.zero_grad(set_to_none=True)
        return found


def timed(update: Callable[[Any], float], groups: list[list[TrainingRow]]) -> tuple[float, float]:
    """Seconds, and the most memory (GB) that this process held meanwhile, both models and all they keep included."""
    with Peak(psutil.Process()) as peak:
        started = time.perf_counter()
        update(groups)
        seconds = time.perf_counter() - started
    return seconds, peak.bytes / 2**30


class Peak:
    """The most memory a process holds inside the block, looked at twenty times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self.bytes = process.memory_info().rss
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def grows(ours: Ours) -> None:
    """What an update costs with more rollouts, more turns and longer prompts; turns share all that came before."""
    print("\nrollouts  turns  prompt  tokens in rows    seconds  memory, GB")
    for size, turns, prompt in (
        (4, 1, 200),
        (8, 1, 200),
        (16, 1, 200),
        (8, 2, 200),
        (8, 4, 200),
        (8, 1, 800),
        (8, 1, 1600),
    ):
        groups = make_groups(2, size, prompt, turns=turns)
        tokens = sum(len(row.token_ids) for group in groups for row in group)
        seconds, memory = timed(ours.update, groups)
        print(f"{2 * size:8} {turns:6} {prompt:7} {tokens:15,} {seconds:10.1f} {memory:11.1f}", flush=True)


def exact_gradients(groups: list[list[TrainingRow]]) -> dict[str, torch.Tensor]:
    """Those of the same loss in float64, row by row, by transformers alone."""
    module = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64)
    rows = [row for group in groups for row in group]
    total = sum(row.trained_tokens for row in rows)
    for row in rows:
        ids = torch.from_numpy(row.token_ids.astype(np.int64))
        trained = np.flatnonzero(row.mask)
        logprobs = module(ids[None], use_cache=False).logits[0, trained - 1].log_softmax(-1)
        chosen = logprobs.gather(1, ids[trained, None])[:, 0]
        (-(chosen * torch.from_numpy(row.advantages[trained]).double()).sum() / total).backward()
    return {name: weight.grad for name, weight in module.named_parameters()}


def error(gradients: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """How far gradients are from the exact ones, as a share of their norm."""
    squares = [(gradients[name].double() - gradient).square().sum() for name, gradient in exact.items()]
    return float((sum(squares) / sum(gradient.square().sum() for gradient in exact.values())) ** 0.5)


def compare(ours: Ours, theirs: Theirs, pairs: int) -> None:
    """Prints pairs of times, and their median ratio."""
    groups = make_groups()
    print("\n     TRL, s  ours, s  ratio   highest memory of the process, GB")
    ratios = []
    for _ in range(pairs):
        (slow, their_memory), (fast, our_memory) = timed(theirs.update, groups), timed(ours.update, groups)
        ratios.append(slow / fast)
        print(f"{slow:11.1f} {fast:8.1f} {ratios[-1]:6.2f}   {their_memory:.1f} and {our_memory:.1f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    ours = Ours()
    few = make_groups(1, 2)
    exact = exact_gradients(few)
    off = error(ours.gradients(few), exact)
    print(f"gradients differ from float64's by {off:.1e} of their norm", flush=True)
    ours.update(make_groups(1))  # what the first one alone costs: AdamW's moments
    try:
        import trl  # noqa: F401
    except ImportError:
        print("trl is not installed: nothing to compare with")
    else:
        with tempfile.TemporaryDirectory() as folder:
            theirs = Theirs(folder)
            print(f"TRL's gradients by {error(theirs.gradients(few), exact):.1e}", flush=True)
            theirs.update(make_groups(1))
            compare(ours, theirs, arguments.pairs)
            del theirs
    grows(ours)
    sys.exit("the gradients differ" if off > CLOSE else None)


if __name__ == "__main__":
    main()
