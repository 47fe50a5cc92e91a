# TO THE TRAINING HELPER, from the lead: I overwrote your uncommitted logprobs.py by mistake at 04:50 (I thought you were stuck). Please write yours back from what you have, commit at once, and go on. Sorry.
"""What the weights of now say of tokens that were written before."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from agentlightning_policy.batches import MicroBatch


def token_logprobs(module: nn.Module, batch: MicroBatch) -> torch.Tensor:
    """Log-probabilities (B, T) of the trained tokens, 0 where padded, in float32, with gradient.

    They are those of the softmax over the whole vocabulary of logits divided by the row's sampling
    temperature: what the engine reports. ``module`` is any causal language model of transformers whose
    attention takes a four-dimensional mask.
    """
    device = next(module.parameters()).device
    lengths = [len(targets) for targets in batch.targets]
    temperatures = np.repeat(np.asarray(batch.temperatures, np.float32), lengths)
    predictors, where = np.unique(np.concatenate(batch.predictors), return_inverse=True)
    logits = _logits(module, batch, torch.from_numpy(predictors).to(device))
    picked = torch.from_numpy(where).to(device)
    targets = torch.from_numpy(np.concatenate(batch.targets)).to(device)
    if np.all(temperatures == temperatures[0]):
        logits = logits / float(temperatures[0])
        normaliser = torch.logsumexp(logits, -1)[picked]
        flat = logits[picked, targets] - normaliser
    else:
        scaled = logits[picked] / torch.from_numpy(temperatures).to(device)[:, None]
        flat = scaled.gather(1, targets[:, None])[:, 0] - torch.logsumexp(scaled, -1)
    mask = batch.mask(device).bool()
    return torch.zeros(mask.shape, device=device).masked_scatter(mask, flat)


def _logits(module: nn.Module, batch: MicroBatch, predictors: torch.Tensor) -> torch.Tensor:
    """Logits (P, V) at the packed places that predict something, in float32."""
    device = predictors.device
    dtype = next(module.parameters()).dtype
    attends = torch.from_numpy(batch.attends).to(device)
    mask = torch.zeros(attends.shape, dtype=dtype, device=device).masked_fill(~attends, torch.finfo(dtype).min)
    logits: torch.Tensor = module(
        input_ids=torch.from_numpy(batch.token_ids).to(device)[None],
        position_ids=torch.from_numpy(batch.positions).to(device)[None],
        attention_mask=mask[None, None],
        logits_to_keep=predictors,
        use_cache=False,
    ).logits
    return logits[0].float()
