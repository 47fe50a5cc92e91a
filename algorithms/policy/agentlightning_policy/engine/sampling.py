"""Drawing tokens: seeded per request, so that a draw does not depend on what else is in the batch.

Axes: B rows, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from torch.nn import functional

CHUNK = 256
COLDEST = 1e-5
"""Temperatures below are greedy: logits divided by them may be no numbers."""


@dataclass
class Sampling:
    """How one request's tokens are drawn. ``temperature`` 0 takes the likeliest token.

    ``top_k`` (0: off) leaves the likeliest k tokens, ``top_p`` the likeliest that hold so much of their mass,
    ``min_p`` those at least so likely as the likeliest times it; in this order.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    top_logprobs: int = 0
    draws: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.temperature < COLDEST:
            self.temperature = 0.0
        self.draws = np.random.default_rng(self.seed % 2**63)


class Drawn(msgspec.Struct, gc=False):
    """One token with its log-probability, and the likeliest ``(id, log-probability)`` beside it.

    There are hundreds of thousands at times, which the garbage collector need not look at: they refer to no others.
    """

    id: int
    logprob: float
    top: list[tuple[int, float]]


def derive_seed(*parts: int | str | bytes) -> int:
    """A seed that depends on all the parts."""
    text = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return zlib.crc32(text) << 32 | zlib.adler32(text)


def draw(logits: torch.Tensor, rows: Sequence[Sampling]) -> list[Drawn]:
    """One token per row from ``logits`` (B, V).

    Log-probabilities are of the softmax of logits / temperature over the whole vocabulary, in float32,
    before any cut (temperature 0 counts as 1).
    """
    scores = logits.float()
    if any(row.temperature not in (0.0, 1.0) for row in rows):
        temperatures = torch.tensor([row.temperature or 1.0 for row in rows], device=scores.device)
        scores = scores / temperatures[:, None]
    best, greedy = scores.max(dim=-1)
    probabilities = torch.softmax(scores, dim=-1)
    # the normaliser from the likeliest token: one pass over the vocabulary less, and no underflow
    normaliser = best - probabilities.gather(1, greedy[:, None])[:, 0].log()
    tops = [
        _top(scores[place] - normaliser[place], row.top_logprobs) if row.top_logprobs else []
        for place, row in enumerate(rows)
    ]
    ids = _choose(probabilities, greedy, rows)
    logprobs = scores.gather(1, ids[:, None])[:, 0] - normaliser
    return [
        Drawn(token, logprob, top) for token, logprob, top in zip(ids.tolist(), logprobs.tolist(), tops, strict=True)
    ]


def _choose(probabilities: torch.Tensor, greedy: torch.Tensor, rows: Sequence[Sampling]) -> torch.Tensor:
    drawn = [place for place, row in enumerate(rows) if row.temperature > 0]
    if not drawn:
        return greedy
    if len(drawn) < len(rows):
        probabilities = probabilities[drawn]
    cut = [place for place, row in enumerate(drawn) if _cuts(rows[row])]
    if cut:
        probabilities[cut] = _cut(probabilities[cut], [rows[drawn[place]] for place in cut])
    draws = [rows[place].draws.random() for place in drawn]
    sampled = _invert(probabilities, torch.tensor(draws, dtype=torch.float64, device=probabilities.device))
    return (
        sampled if len(drawn) == len(rows) else greedy.index_copy(0, torch.tensor(drawn, device=greedy.device), sampled)
    )


def _cuts(row: Sampling) -> bool:
    return row.top_p < 1 or row.top_k > 0 or row.min_p > 0


def _cut(probabilities: torch.Tensor, rows: Sequence[Sampling]) -> torch.Tensor:
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
