"""Training rows → micro-batches in which every shared prefix is computed once.

The rows of a micro-batch are laid out as a tree of token segments: the system prompt that all tasks share,
the prompt that a group shares, the turns that continued rollouts share, each row's own end::

    [ system ][ task 1 ][ row 1 ][ row 2 ][ task 2 ][ row 3 ] …

A token's position is its depth in the tree, and it attends to itself and its ancestors, so each row sees
just what it would see alone. A token is predicted at its predecessor, the end of the parent segment where
rows branch: one position may predict the next tokens of many rows.

Axes: N packed tokens, B rows, T trained tokens of the longest row, P predictors (positions whose next token
is trained, once per temperature), E trained tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agentlightning.errors import AlgorithmError
from agentlightning.training_rows import TrainingRow

LITTLE_SHARED = 0.05
"""The part of a batch that may be computed again so that the next row need not be in it."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    ``rows`` are its rows, ``indices`` where each stands in the list that was batched. ``token_ids`` and
    ``positions`` are (N,). ``starts`` and ``ends`` delimit the segments; ``parents`` names each one's parent,
    -1 at a root, and a parent comes before its children. ``predictors`` and ``temperatures`` are (P,). The
    e-th trained token ``targets[e]`` is the ``entry_columns[e]``-th one of row ``entry_rows[e]``, and is
    predicted by predictor ``entry_predictors[e]``, which is sorted. ``lengths`` (B,) count trained tokens.
    """

    rows: list[TrainingRow]
    indices: list[int]
    token_ids: np.ndarray
    positions: np.ndarray
    starts: list[int]
    ends: list[int]
    parents: list[int]
    predictors: np.ndarray
    temperatures: np.ndarray
    entry_rows: np.ndarray
    entry_columns: np.ndarray
    entry_predictors: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray

    @property
    def mask(self) -> Tensor:
        """(B, T) float: 1 for a row's trained tokens, 0 for the padding after them."""
        return torch.from_numpy(np.arange(int(self.lengths.max()))[None] < self.lengths[:, None]).float()

    @property
    def advantages(self) -> Tensor:
        """(B, T) float: what credit assignment gave each token, 0 in the padding."""
        return self.pad([row.advantages[row.mask] for row in self.rows])

    @property
    def sampler_logprobs(self) -> Tensor:
        """(B, T) float: what the engine recorded as it sampled, 0 in the padding."""
        return self.pad([row.logprobs[row.mask] for row in self.rows])

    def pad(self, rows: Sequence[np.ndarray]) -> Tensor:
        """Values of each row's trained tokens → (B, T) float, 0 in the padding."""
        padded = np.zeros((len(self.lengths), int(self.lengths.max())), np.float32)
        for index, values in enumerate(rows):
            padded[index, : len(values)] = values
        return torch.from_numpy(padded)

    @property
    def paths(self) -> list[list[int]]:
        """What each segment attends to: the segments from its root down to itself."""
        paths: list[list[int]] = []
        for segment, parent in enumerate(self.parents):
            paths.append([*(paths[parent] if parent >= 0 else ()), segment])
        return paths


def make_batches(rows: Sequence[TrainingRow], max_tokens: int) -> list[Batch]:
    """Micro-batches of at most ``max_tokens`` distinct tokens each, in an order that depends on nothing but
    the rows. A longer row is a batch of its own; a row without a trained token is left out.

    From half of that on, a batch ends where the next row shares little with it: several small ones need less memory
    than a large one, and on a CPU less time.

    Rows are taken in the order of their tokens, which puts those that share a prompt beside one another.
    Raises `AlgorithmError` for a row whose first token is trained: nothing precedes it to predict it.
    """
    for row in rows:
        if row.mask[:1].any():
            raise AlgorithmError(f"rollout {row.rollout_id}: the first token of a row cannot be trained")
    order = sorted(
        (index for index, row in enumerate(rows) if row.mask.any()),
        key=lambda index: (rows[index].token_ids.astype(">i4").tobytes(), rows[index].rollout_id, index),
    )
    batches: list[Batch] = []
    indices: list[int] = []
    shared: list[int] = []
    size = 0
    for index in order:
        token_ids = rows[index].token_ids
        prefix = _common(rows[indices[-1]].token_ids, token_ids) if indices else 0
        is_enough = size >= max_tokens // 2 and prefix < LITTLE_SHARED * size
        if indices and (is_enough or size + len(token_ids) - prefix > max_tokens):
            batches.append(_pack(rows, indices, shared))
            indices, shared, size, prefix = [], [], 0, 0
        indices.append(index)
        shared.append(prefix)
        size += len(token_ids) - prefix
    if indices:
        batches.append(_pack(rows, indices, shared))
    return batches


def _common(first: np.ndarray, second: np.ndarray) -> int:
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length


def _pack(rows: Sequence[TrainingRow], indices: list[int], shared: list[int]) -> Batch:
    """``shared[i]`` is how many tokens row i has in common with the row before: in sorted order that is
    the most it has in common with any, so what follows is new."""
    token_ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    places = np.empty(0, np.int64)
    row_places: list[np.ndarray] = []
    size = 0
    chosen = [rows[index] for index in indices]
    for row, prefix in zip(chosen, shared, strict=True):
        own = row.token_ids[prefix:]
        places = np.concatenate([places[:prefix], np.arange(size, size + len(own))])
        row_places.append(places)
        token_ids.append(own)
        positions.append(np.arange(prefix, prefix + len(own)))
        size += len(own)
    starts, ends, parents = _segments(row_places, shared, size)
    trained = [np.flatnonzero(row.mask) for row in chosen]
    lengths = np.array([len(at) for at in trained])
    predicted_at = np.concatenate([places[at - 1] for places, at in zip(row_places, trained, strict=True)])
    temperature = np.repeat([row.temperature for row in chosen], lengths)
    predictors, entry_predictors = np.unique(np.stack([predicted_at, temperature], axis=1), axis=0, return_inverse=True)
    entry_predictors = entry_predictors.reshape(-1)
    order = np.argsort(entry_predictors, kind="stable")
    targets = np.concatenate([row.token_ids[at] for row, at in zip(chosen, trained, strict=True)])
    return Batch(
        rows=chosen,
        indices=indices,
        token_ids=np.concatenate(token_ids).astype(np.int64),
        positions=np.concatenate(positions),
        starts=starts,
        ends=ends,
        parents=parents,
        predictors=predictors[:, 0].astype(np.int64),
        temperatures=predictors[:, 1].astype(np.float32),
        entry_rows=np.repeat(np.arange(len(chosen)), lengths)[order],
        entry_columns=np.concatenate([np.arange(length) for length in lengths])[order],
        entry_predictors=entry_predictors[order],
        targets=targets[order].astype(np.int64),
        lengths=lengths,
    )


def _segments(row_places: list[np.ndarray], shared: list[int], size: int) -> tuple[list[int], list[int], list[int]]:
    """Cuts the packed tokens where a row begins and where one branches off."""
    before: dict[int, int] = {}
    for places, prefix in zip(row_places, shared, strict=True):
        if prefix < len(places):
            before[int(places[prefix])] = int(places[prefix - 1]) if prefix else -1
    cuts = sorted({*before, *(last + 1 for last in before.values() if last >= 0), size})
    starts, ends = cuts[:-1], cuts[1:]
    ending_at = {end - 1: segment for segment, end in enumerate(ends)}
    return starts, ends, [ending_at.get(before.get(start, start - 1), -1) for start in starts]
