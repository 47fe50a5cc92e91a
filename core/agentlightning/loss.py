"""What can be said of a loss; the backend computes it (`agentlightning.backend.Backend.update`)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agentlightning.config import Fraction, NonNegative, Positive, PositiveInt

SamplerCorrection = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


class LossConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A full choice of loss. ρ is π / π_old, A the advantage.

    ``kind``: ``clip`` (PPO's, Schulman et al. 2017), ``cispo`` (MiniMax-M1, 2025), ``sapo`` (Qwen, 2025), or
    ``cross_entropy``, −A · log π: REINFORCE (Williams 1992), and with A = 1 supervised learning.
    ``ratio``: ``token``, or ``sequence`` for GSPO's geometric mean over the sequence (Zheng et al. 2025).
    ``epsilon_low`` and ``epsilon_high`` clip ρ to [1 − low, 1 + high]; ``delta`` caps the unclipped ρ
    (INTELLECT-2), ``dual_clip`` bounds the loss at −dual_clip·A for A < 0 (Ye et al. 2020).
    ``cispo_min`` and ``cispo_max`` are the absolute range of CISPO's ratio.
    ``aggregation``: ``token_mean`` over the tokens of the whole batch (DAPO), ``sequence_mean`` over the
    sequences' token means (GRPO), ``micro_batch_token_mean`` (BNPO), ``constant``, over ``constant_length``
    times the number of sequences (Dr. GRPO).
    ``beta`` weighs the KL to the reference (k3); ``kl_bias_correction`` multiplies it by ρ.
    ``sampler_correction`` weighs tokens by π_old / π_sampler: truncated to [min, max], or masked outside.
    """

    kind: Literal["clip", "cispo", "sapo", "cross_entropy"] = "clip"
    ratio: Literal["token", "sequence"] = "token"
    epsilon_low: Fraction = 0.2
    epsilon_high: NonNegative = 0.2
    delta: Positive | None = None
    dual_clip: Annotated[float, msgspec.Meta(gt=1)] | None = None
    cispo_min: NonNegative = 0.0
    cispo_max: Positive = 5.0
    sapo_tau_positive: Positive = 1.0
    sapo_tau_negative: Positive = 1.05
    aggregation: Literal["token_mean", "sequence_mean", "micro_batch_token_mean", "constant"] = "token_mean"
    constant_length: PositiveInt = 512
    beta: NonNegative = 0.0
    kl_bias_correction: bool = False
    sampler_correction: SamplerCorrection = "none"
    sampler_correction_min: NonNegative = 0.0
    sampler_correction_max: Positive = 3.0

    def __post_init__(self) -> None:
        for name in ("cispo", "sampler_correction"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise ValueError(f"expected {name}_min <= {name}_max, got {low} and {high}")

    def without_effect(self) -> dict[str, str]:
        """The fields whose value changes nothing of this loss, and what would have to be for it to do so."""
        clip = ("epsilon_low", "epsilon_high", "delta", "dual_clip")
        unused = {} if self.kind == "clip" else dict.fromkeys(clip, "kind is clip")
        if self.kind != "cispo":
            unused |= dict.fromkeys(("cispo_min", "cispo_max"), "kind is cispo")
        if self.kind != "sapo":
            unused |= dict.fromkeys(("sapo_tau_positive", "sapo_tau_negative"), "kind is sapo")
        if self.kind == "cross_entropy" and not (self.beta and self.kl_bias_correction):
            unused["ratio"] = "kind is another than cross_entropy"
        if self.aggregation != "constant":
            unused["constant_length"] = "aggregation is constant"
        if self.beta == 0:
            unused["kl_bias_correction"] = "beta is greater than 0"
        if self.sampler_correction == "none":
            unused |= dict.fromkeys(
                ("sampler_correction_min", "sampler_correction_max"), "sampler_correction is chosen"
            )
        return unused
