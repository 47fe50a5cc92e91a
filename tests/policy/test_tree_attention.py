"""Attention over a tree of segments is that of each row by itself, forward and backward, in one part or in two."""

from __future__ import annotations

import pytest
import torch
from policy.rows import training_row
from torch import Tensor
from torch.nn import functional

from agentlightning_policy import tree_attention
from agentlightning_policy.attention import causal
from agentlightning_policy.batches import Batch, make_batches
from agentlightning_policy.flash import has_flash_kernels
from agentlightning_policy.tree_attention import TreeAttention

HEADS, KV_HEADS, SIZE, SCALE = 6, 2, 8, 0.3

SYSTEM = list(range(1, 12))
TREES = {
    "one row": [[1, 2, 3, 4]],
    "rows that share nothing": [[1, 2, 3], [4, 5, 6, 7], [8, 9]],
    "answers to one prompt, of like length": [[*SYSTEM, 20, 21, 22], [*SYSTEM, 30, 31], [*SYSTEM, 40, 41, 42]],
    "a system prompt, tasks, answers, and turns after one": [
        [*SYSTEM, 50, 51, 20],
        [*SYSTEM, 50, 51, 21, 22, 23, 24, 25, 26, 27, 28],
        [*SYSTEM, 50, 51, 21, 22, 29],
        [*SYSTEM, 60, 61, 62, 20],
        [*SYSTEM, 60, 61, 62, 30, 31],
        [70, 71, 72],
    ],
}


def batch_of(rows: list[list[int]]) -> Batch:
    made = [training_row(row, list(range(1, len(row)))) for row in rows]
    (batch,) = make_batches(made, 1000)
    return batch


def row_by_row(batch: Batch, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """The same from the definition: each segment's tokens against all tokens on the way to them."""
    out = torch.zeros(1, query.shape[2], HEADS, SIZE)
    for segment, path in enumerate(batch.paths):
        seen = torch.cat([torch.arange(batch.starts[it], batch.ends[it]) for it in path])
        own = slice(batch.starts[segment], batch.ends[segment])
        mask = causal(own.stop - own.start, len(seen), window, query.device)
        found = functional.scaled_dot_product_attention(
            query[:, :, own], key[:, :, seen], value[:, :, seen], attn_mask=mask, scale=SCALE, enable_gqa=True
        )
        out[:, own] = found.transpose(1, 2)
    return out


@pytest.mark.parametrize("window", [None, 100, 5])
@pytest.mark.parametrize("kernels", [True, False], ids=["in two parts", "in one"])
@pytest.mark.parametrize("rows", TREES.values(), ids=list(TREES))
def test_every_token_sees_its_row_up_to_itself(
    rows: list[list[int]], kernels: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernels:
        monkeypatch.setattr(tree_attention, "has_flash_kernels", lambda: False)
    batch = batch_of(rows)
    generator = torch.Generator().manual_seed(0)
    size = len(batch.token_ids)
    inputs = [
        torch.randn(1, heads, size, SIZE, generator=generator, requires_grad=True)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]
    weight = torch.randn(1, size, HEADS, SIZE, generator=generator)
    attend = TreeAttention(batch, torch.device("cpu"))
    results = []
    for out in (attend(0, *inputs, SCALE, window), row_by_row(batch, *inputs, window)):
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_torch_has_the_kernels_that_two_parts_need() -> None:
    assert has_flash_kernels(), "their names or what they give have changed: packed rows are slower on a CPU"
