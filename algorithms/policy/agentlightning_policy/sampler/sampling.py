"""Drawing tokens: seeded per request, so that a draw does not depend on what else is in the batch.

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from agentlightning.sampler import SampledToken, SamplingParams

CHUNK = 256
COLDEST = 1e-5
"""Temperatures below are greedy: logits divided by them may be no numbers."""


Row = tuple[SamplingParams, np.random.Generator]
"""How one row's token is drawn, and from which random numbers."""


def random_source(params: SamplingParams) -> np.random.Generator:
    """The random numbers of one request: they depend on its seed alone."""
    return np.random.default_rng(params.seed % 2**63)


def draw(logits: torch.Tensor, rows: Sequence[Row]) -> list[SampledToken]:
    """One token per row from ``logits`` (B, V).

    Log-probabilities are of the softmax of logits / temperature over the whole vocabulary, in float32,
    before any cut (temperature 0 counts as 1).
    """
    scores = logits.float()
    if any(params.temperature not in (0.0, 1.0) for params, _ in rows):
        temperatures = torch.tensor([params.temperature or 1.0 for params, _ in rows], device=scores.device)
        scores = scores / temperatures[:, None]
    best, greedy = scores.max(dim=-1)
    probabilities = torch.softmax(scores, dim=-1)
    # the normaliser from the likeliest token: one pass over the vocabulary less, and no underflow
    normaliser = best - probabilities.gather(1, greedy[:, None])[:, 0].log()
    tops = [
        _top(scores[index] - normaliser[index], params.top_logprobs) if params.top_logprobs else []
        for index, (params, _) in enumerate(rows)
    ]
    ids = _choose(probabilities, greedy, rows)
    logprobs = scores.gather(1, ids[:, None])[:, 0] - normaliser
    return [
        SampledToken(token, logprob, None, top)
        for token, logprob, top in zip(ids.tolist(), logprobs.tolist(), tops, strict=True)
    ]


def _choose(probabilities: torch.Tensor, greedy: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    sampled = [index for index, (params, _) in enumerate(rows) if params.temperature > 0]
    if not sampled:
        return greedy
    if len(sampled) < len(rows):
        probabilities = probabilities[sampled]
    wanted = [rows[index][0] for index in sampled]
    cut = [index for index, params in enumerate(wanted) if _cuts(params)]
    if cut:
        probabilities[cut] = _cut(probabilities[cut], [wanted[index] for index in cut])
    uniform = [rows[index][1].random() for index in sampled]
    ids = _invert(probabilities, torch.tensor(uniform, dtype=torch.float64, device=probabilities.device))
    return ids if len(sampled) == len(rows) else greedy.index_copy(0, torch.tensor(sampled, device=greedy.device), ids)


def _cuts(params: SamplingParams) -> bool:
    return params.top_p < 1 or params.top_k > 0 or params.min_p > 0


def _cut(probabilities: torch.Tensor, rows: Sequence[SamplingParams]) -> torch.Tensor:
    """Zero for the tokens that each row's top-k, top-p and min-p leave out; what is left sums to less than one."""
    size, device = probabilities.shape[1], probabilities.device
    top_k = torch.tensor([min(row.top_k or size, size) for row in rows], device=device)
    top_p = torch.tensor([row.top_p for row in rows], device=device)
    min_p = torch.tensor([row.min_p for row in rows], device=device)
    ordered, order = probabilities.sort(dim=-1, descending=True)
    ordered = ordered.masked_fill(torch.arange(size, device=device) >= top_k[:, None], 0.0)
    before = ordered.cumsum(dim=-1) - ordered
    # where nothing is cut, a rounded sum must not cut either
    beyond = (before >= (top_p * ordered.sum(dim=-1))[:, None]) & (top_p < 1)[:, None]
    left_out = beyond | (ordered < (min_p * ordered[:, 0])[:, None])
    left_out[:, 0] = False  # a top-p that is zero in float32 leaves the likeliest token, too
    ordered = ordered.masked_fill(left_out, 0.0)
    return torch.zeros_like(probabilities).scatter_(1, order, ordered)


def _invert(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Inverse transform sampling. The cumulative sum runs over sums of chunks first, then inside the chosen
    chunk: the vocabulary is read once."""
    size = probabilities.shape[1]
    chunks = functional.pad(probabilities, (0, -size % CHUNK)) if size % CHUNK else probabilities
    chunks = chunks.unflatten(1, (-1, CHUNK))
    sums = chunks.sum(dim=-1).double().cumsum(dim=-1)
    target = uniform[:, None] * sums[:, -1:]
    chunk = torch.searchsorted(sums, target, right=True)
    before = torch.where(chunk > 0, sums.gather(1, (chunk - 1).clamp_(min=0)), 0.0)
    inside = chunks.gather(1, chunk[:, :, None].expand(-1, -1, CHUNK))[:, 0].double().cumsum(dim=-1)
    # the sums differ in their last bits: stay below the chunk's own, or a token of no probability is drawn
    rest = torch.minimum(target - before, inside[:, -1:] * (1 - 1e-12))
    return (chunk * CHUNK + torch.searchsorted(inside, rest, right=True))[:, 0]


def _top(logprobs: torch.Tensor, count: int) -> list[tuple[int, float]]:
    best = torch.topk(logprobs, count)
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
