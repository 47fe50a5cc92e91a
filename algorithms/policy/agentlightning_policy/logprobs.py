"""Log-probabilities of the tokens that the policy wrote, as the engine computes them: softmax of the logits divided
by the sampling temperature, in float32.

Only positions that predict a trained token get logits, and never more than `MAX_LOGITS` numbers of them are
in memory at once: past that, the output layer is computed in pieces, and again in the backward pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agentlightning.errors import PolicyError
from agentlightning.training_rows import TrainingRow
from agentlightning_policy.attention import check_custom_attention, custom_attention
from agentlightning_policy.batches import Batch, make_batches
from agentlightning_policy.softmax import target_logprobs
from agentlightning_policy.tree_attention import TreeAttention

logger = logging.getLogger(__name__)

MAX_LOGITS = 2**27


@dataclass(frozen=True)
class TokenLogprobs:
    """``logprobs`` (B, T) with gradient, 0 in the padding. ``entropy`` is the sum over the trained tokens of
    the entropy (nats) of the distribution they were drawn from, detached."""

    logprobs: Tensor
    entropy: Tensor


def token_logprobs(module: nn.Module, batch: Batch) -> TokenLogprobs:
    """The log-probability under ``module``'s weights of every trained token of the batch.

    ``module`` is a causal language model of transformers, with or without peft's adapters. Shared prefixes
    are computed once where the model allows, which is tried out at its first use; row by row otherwise.
    """
    model = _base(module)
    if supports_packing(model):
        return _packed_logprobs(model, batch)
    return unpacked_logprobs(module, batch)


def unpacked_logprobs(module: nn.Module, batch: Batch) -> TokenLogprobs:
    """The same from plain rows, padded at the end, through the model's own forward pass."""
    model = _base(module)
    device = model.device
    longest = max(len(row.token_ids) for row in batch.rows)
    token_ids = torch.zeros(len(batch.rows), longest, dtype=torch.long)
    attention = torch.zeros_like(token_ids)
    for index, row in enumerate(batch.rows):
        token_ids[index, : len(row.token_ids)] = torch.from_numpy(row.token_ids.astype(np.int64))
        attention[index, : len(row.token_ids)] = 1
    logits = model(token_ids.to(device), attention_mask=attention.to(device), use_cache=False).logits
    trained = [np.flatnonzero(row.mask) for row in batch.rows]
    rows = np.repeat(np.arange(len(trained)), batch.lengths)
    columns = np.concatenate([np.arange(length) for length in batch.lengths])
    at = np.concatenate(trained)
    temperatures = np.repeat([row.temperature for row in batch.rows], batch.lengths)
    chosen, entropy = target_logprobs(
        logits[rows, at - 1].float(),
        torch.from_numpy(temperatures.astype(np.float32)).to(device),
        torch.arange(len(at), device=device),
        token_ids[rows, at].to(device),
    )
    return TokenLogprobs(logprobs=_lay_out(batch, chosen, rows, columns), entropy=entropy)


def _packed_logprobs(model: Any, batch: Batch) -> TokenLogprobs:
    device = model.device
    with custom_attention(model):
        hidden = model.base_model(
            input_ids=torch.from_numpy(batch.token_ids).to(device)[None],
            position_ids=torch.from_numpy(batch.positions).to(device)[None],
            use_cache=False,
            attend=TreeAttention(batch, device),
        ).last_hidden_state[0]
    hidden = hidden[torch.from_numpy(batch.predictors).to(device)]
    head = model.get_output_embeddings()
    temperatures = torch.from_numpy(batch.temperatures).to(device)
    predictors = torch.from_numpy(batch.entry_predictors).to(device)
    targets = torch.from_numpy(batch.targets).to(device)
    piece = max(1, MAX_LOGITS // head.weight.shape[0])
    recompute = len(hidden) > piece and torch.is_grad_enabled()
    logprobs, entropies = [], []
    for start in range(0, len(hidden), piece):
        first, last = np.searchsorted(batch.entry_predictors, [start, start + piece])
        inputs = (
            head,
            hidden[start : start + piece],
            temperatures[start : start + piece],
            predictors[first:last] - start,
            targets[first:last],
        )
        chosen, entropy = checkpoint(_of_targets, *inputs, use_reentrant=False) if recompute else _of_targets(*inputs)
        logprobs.append(chosen)
        entropies.append(entropy)
    return TokenLogprobs(
        logprobs=_lay_out(batch, torch.cat(logprobs), batch.entry_rows, batch.entry_columns),
        entropy=torch.stack(entropies).sum(),
    )


def _of_targets(
    head: Callable[[Tensor], Tensor], hidden: Tensor, temperatures: Tensor, predictors: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    return target_logprobs(head(hidden).float(), temperatures, predictors, targets)


def _lay_out(batch: Batch, values: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    padded = values.new_zeros(len(batch.rows), int(batch.lengths.max()))
    where = (torch.from_numpy(rows).to(values.device), torch.from_numpy(columns).to(values.device))
    return padded.index_put(where, values)


def _base(module: nn.Module) -> Any:
    """The transformers model itself; peft's adapters are inside its layers."""
    whole: Any = module
    return whole.get_base_model() if hasattr(module, "get_base_model") else whole


_packing: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def supports_packing(module: nn.Module) -> bool:
    """Whether the model computes shared prefixes once: packed rows that branch twice give what plain rows give.

    False for models with recurrent layers, with positions that no position ids govern, or whose logits
    are not just the output layer of the last hidden state.
    """
    model = _base(module)
    known = _packing.get(model)
    if known is None:
        known = _packing[model] = _try_packing(model)
        if not known:
            name = type(model).__name__
            logger.warning("%s cannot compute shared prefixes once: its rows are computed one by one", name)
    return known


@torch.no_grad()
def _try_packing(model: Any) -> bool:
    step = model.get_output_embeddings().weight.shape[0] // 11
    branching = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9], [1, 2, 3, 7, 5, 4, 6]]
    rows = [_probe([token * step for token in row]) for row in branching]
    was_training = model.training
    model.eval()
    try:
        check_custom_attention(model)
        alone, together = _differences(model, rows[:1]), _differences(model, rows)
    except (PolicyError, TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        logger.info("packed rows do not run on %s: %s", type(model).__name__, error)
        return False
    finally:
        model.train(was_training)
    if model.dtype == torch.float32:
        return bool(together.max() < 1e-3)
    # rounding alone moves a few of these by much, but not most, and none where the shapes are the same
    return bool(alone.max() < 0.1 and together.median() < 0.5)


def _differences(model: Any, rows: list[TrainingRow]) -> Tensor:
    (batch,) = make_batches(rows, 100)
    difference = unpacked_logprobs(model, batch).logprobs - _packed_logprobs(model, batch).logprobs
    return difference.abs()[batch.mask.bool().to(difference.device)]


def _probe(token_ids: list[int]) -> TrainingRow:
    count = len(token_ids)
    return TrainingRow(
        rollout_id="probe",
        policy="probe",
        token_ids=np.array(token_ids, np.int32),
        mask=np.arange(count) > 0,
        logprobs=np.zeros(count, np.float32),
        advantages=np.zeros(count, np.float32),
    )
