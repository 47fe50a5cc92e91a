"""Policy losses: per-token loss, aggregation, KL and sampler correction, as pure functions of tensors.

Axes: B sequences of the micro-batch, T trained tokens of the longest of them. A row holds the tokens that
the policy wrote, in order, padded at the end; ``mask`` (B, T) is 1 for tokens and 0 for padding.
A sequence-level quantity is (B, 1). ``ρ`` is exp(logπ − logπ_old).

Every loss here is a share: summed over the micro-batches of one optimizer step it gives the loss of the
whole batch, whatever the split (`Totals` says how large the whole is).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from agentlightning.loss import LossConfig


@dataclass(frozen=True)
class Totals:
    """How much the whole batch of one optimizer step holds, over all its micro-batches."""

    sequences: int
    tokens: int


@dataclass(frozen=True)
class LossOutput:
    """``loss`` is the micro-batch's share, with gradient. The others are detached sums over its tokens."""

    loss: Tensor
    kl: Tensor
    clipped: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    config: LossConfig,
    totals: Totals,
    *,
    reference_logprobs: Tensor | None = None,
    sampler_logprobs: Tensor | None = None,
) -> LossOutput:
    """The loss of one micro-batch. Log-probabilities are (B, T), ``advantages`` (B,) or (B, T).

    ``reference_logprobs`` are needed where ``beta`` is not 0, ``sampler_logprobs`` where
    ``sampler_correction`` is not ``none``. Raises `ValueError` where they are missing.
    """
    mask = mask.to(logprobs.dtype)
    advantages = advantages if advantages.dim() == 2 else advantages.unsqueeze(1)
    rho = probability_ratio(logprobs, old_logprobs, mask, config.ratio)
    loss = token_loss(logprobs, rho, advantages, config)
    if config.sampler_correction != "none":
        if sampler_logprobs is None:
            raise ValueError("a sampler correction needs the sampler's log-probabilities")
        loss = loss * sampler_weights(old_logprobs, sampler_logprobs, mask, config)
    kl = torch.zeros_like(logprobs)
    if config.beta != 0.0:
        if reference_logprobs is None:
            raise ValueError("a KL term needs the reference's log-probabilities")
        kl = kl_k3(logprobs, reference_logprobs)
        loss = loss + config.beta * (kl * rho if config.kl_bias_correction else kl)
    return LossOutput(
        loss=aggregate(loss, mask, config, totals),
        kl=(kl.detach() * mask).sum(),
        clipped=(is_clipped(rho.detach(), advantages, config) * mask).sum(),
    )


def probability_ratio(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: Literal["token", "sequence"]
) -> Tensor:
    """ρ per token (B, T), or exp(Σ m·log ρ / Σ m) per sequence (B, 1)."""
    log_ratio = logprobs - old_logprobs
    if level == "sequence":
        log_ratio = (log_ratio * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
    return log_ratio.exp()


def token_loss(logprobs: Tensor, rho: Tensor, advantages: Tensor, config: LossConfig) -> Tensor:
    """The loss per token (B, T), before masking."""
    if config.kind == "cross_entropy":
        return -advantages * logprobs
    if config.kind == "cispo":
        return -rho.clamp(config.cispo_min, config.cispo_max).detach() * advantages * logprobs
    if config.kind == "sapo":
        tau = torch.where(advantages > 0, config.sapo_tau_positive, config.sapo_tau_negative)
        return -(4 / tau) * torch.sigmoid(tau * (rho - 1)) * advantages
    capped = rho if config.delta is None else rho.clamp(max=config.delta)
    clipped = rho.clamp(1 - config.epsilon_low, 1 + config.epsilon_high)
    loss = -torch.min(capped * advantages, clipped * advantages)
    if config.dual_clip is not None:
        loss = torch.where(advantages < 0, torch.min(loss, -config.dual_clip * advantages), loss)
    return loss


def is_clipped(rho: Tensor, advantages: Tensor, config: LossConfig) -> Tensor:
    """1 where the ratio's bound takes the gradient away (CISPO: where it changes the weight), else 0."""
    if config.kind == "cispo":
        return ((rho < config.cispo_min) | (rho > config.cispo_max)).to(rho.dtype)
    if config.kind in ("sapo", "cross_entropy"):
        return torch.zeros_like(rho)
    low = (rho < 1 - config.epsilon_low) & (advantages < 0)
    high = (rho > 1 + config.epsilon_high) & (advantages > 0)
    return (low | high).to(rho.dtype)


def sampler_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, config: LossConfig) -> Tensor:
    """π_old / π_sampler per token (B, T) or per sequence (B, 1), truncated or masked; without gradient.

    Truncated importance sampling (Yao et al. 2025); the sequence variants multiply over the sequence.
    """
    level, _, bound = config.sampler_correction.partition("_")
    difference = (old_logprobs.detach() - sampler_logprobs) * mask
    weights = (difference.sum(-1, keepdim=True) if level == "sequence" else difference).exp()
    low, high = config.sampler_correction_min, config.sampler_correction_max
    if bound == "truncate":
        return weights.clamp(low, high)
    return weights.masked_fill((weights < low) | (weights > high), 0.0)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(π ‖ reference) per token: exp(r − π) − (r − π) − 1, never negative."""
    difference = reference_logprobs - logprobs
    return difference.exp() - difference - 1


def aggregate(loss: Tensor, mask: Tensor, config: LossConfig, totals: Totals) -> Tensor:
    """The micro-batch's share of the batch's loss, a scalar.

    ``micro_batch_token_mean`` depends on the split by its definition: each micro-batch's mean counts with
    its share of the sequences.
    """
    loss = loss * mask
    match config.aggregation:
        case "token_mean":
            return loss.sum() / max(totals.tokens, 1)
        case "sequence_mean":
            return (loss.sum(-1) / mask.sum(-1).clamp(min=1)).sum() / max(totals.sequences, 1)
        case "micro_batch_token_mean":
            return loss.sum() / mask.sum().clamp(min=1) * len(mask) / max(totals.sequences, 1)
        case "constant":
            return loss.sum() / (max(totals.sequences, 1) * config.constant_length)
