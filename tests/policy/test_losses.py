"""The golden values that TRL, verl, SkyRL and ART agree on, and what every loss must keep to.

Axes: B = 4 sequences, T = 6 tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agentlightning.advantages import AdvantageConfig, advantages
from agentlightning.loss import LossConfig
from agentlightning_grpo.presets import PRESETS, resolve_preset
from agentlightning_policy.losses import Totals, policy_loss, sampler_weights

CURRENT = torch.tensor(
    [
        [-4.313508, -4.262269, -4.023553, -4.040444, -4.142231, -4.158947],
        [-4.219751, -4.189888, -4.260154, -3.949106, -4.133908, -4.105223],
        [-4.159330, -4.092637, -4.243444, -4.202464, -4.121606, -4.180151],
        [-4.142215, -4.246791, -4.165092, -4.178593, -4.134926, -4.160776],
    ]
)
OLD = torch.tensor(
    [
        [-3.350050, -3.518627, -3.573195, -5.093204, -3.803022, -4.776219],
        [-4.241285, -4.992221, -4.082224, -4.292418, -4.380586, -3.984479],
        [-4.714782, -4.046864, -5.401905, -4.310866, -4.276470, -4.378006],
        [-3.740510, -4.557589, -4.461092, -4.210130, -4.549203, -3.995327],
    ]
)
REFERENCE = torch.tensor(
    [
        [-4.303034, -4.165938, -3.551473, -4.294084, -3.748539, -3.952799],
        [-4.546504, -4.296474, -3.826614, -3.692183, -3.468485, -3.948273],
        [-4.055336, -4.151836, -4.559821, -3.819065, -4.173264, -4.023014],
        [-4.125229, -4.118903, -3.992590, -4.371110, -4.796845, -4.386017],
    ]
)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]])
REWARDS = np.array([1.0, 0.0, 0.5, 0.0])
TOTALS = Totals(sequences=4, tokens=16)


def advantage(config: AdvantageConfig = PRESETS["trl-1.16/grpo"].advantage) -> torch.Tensor:
    return torch.from_numpy(advantages([REWARDS], config)[0]).float()


def loss_of(config: LossConfig, given: torch.Tensor | None = None) -> torch.Tensor:
    given = advantage() if given is None else given
    return policy_loss(CURRENT, OLD, given, MASK, config, TOTALS, reference_logprobs=REFERENCE).loss


GOLDEN = {
    "dapo": ("trl-1.16/dapo", {}, -0.161672),
    "dapo, verl": ("verl-0.9/grpo", {}, -0.161672),
    "grpo": ("trl-1.16/grpo", {}, 0.154674),
    "dr_grpo, C=8": ("trl-1.16/dr_grpo", {"constant_length": 8}, -0.080836),
    "dr_grpo, C=8, verl": ("verl-0.9/dr_grpo", {"constant_length": 8}, -0.080836),
    "gspo": ("trl-1.16/gspo", {}, 0.067286),
    "gspo, verl": ("verl-0.9/gspo", {}, 0.067286),
    "sapo": ("trl-1.16/sapo", {}, -0.033619),
    "sapo, verl": ("verl-0.9/sapo", {}, -0.033619),
    "cispo in [0, 5]": ("trl-1.16/cispo", {}, 1.618182),
    "cispo in [0, 5], verl": ("verl-0.9/cispo", {"cispo_min": 0.0, "cispo_max": 5.0}, 1.618182),
}


@pytest.mark.parametrize(("preset", "fields", "expected"), GOLDEN.values(), ids=GOLDEN.keys())
def test_golden_loss(preset: str, fields: dict[str, float], expected: float) -> None:
    assert loss_of(resolve_preset(preset, fields).loss).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("corrected", "expected"), [(False, 0.003664), (True, 0.004318)])
def test_golden_kl(corrected: bool, expected: float) -> None:
    without = loss_of(LossConfig())
    with_kl = loss_of(LossConfig(beta=0.1, kl_bias_correction=corrected))
    assert (with_kl - without).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_with_the_sampling_policy_itself_the_gradient_is_the_policy_gradient(name: str) -> None:
    """ρ is 1 everywhere: whatever the loss, ∂loss/∂logπ = −A · the token's weight in the aggregation."""
    config = PRESETS[name].loss
    logprobs = CURRENT.clone().requires_grad_()
    given = advantage()
    policy_loss(logprobs, CURRENT, given, MASK, config, TOTALS).loss.backward()
    lengths = MASK.sum(1, keepdim=True)
    weight = {
        "token_mean": torch.tensor(1 / 16),
        "micro_batch_token_mean": torch.tensor(1 / 16),
        "sequence_mean": 1 / (4 * lengths),
        "constant": torch.tensor(1 / (4 * config.constant_length)),
    }[config.aggregation]
    torch.testing.assert_close(logprobs.grad, -given[:, None] * weight * MASK, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.endswith("bnpo")])
def test_a_split_into_micro_batches_changes_neither_loss_nor_gradient(name: str) -> None:
    config = resolve_preset(name, {"beta": 0.1, "sampler_correction": "token_truncate"}).loss
    whole, split = CURRENT.clone().requires_grad_(), CURRENT.clone().requires_grad_()
    rest = {"reference_logprobs": REFERENCE, "sampler_logprobs": OLD + 0.3}
    expected = policy_loss(whole, OLD, advantage(), MASK, config, TOTALS, **rest).loss
    shares = []
    for rows in ([0, 2], [3], [1]):
        chosen = {key: value[rows] for key, value in rest.items()}
        given = advantage()[rows]
        shares.append(policy_loss(split[rows], OLD[rows], given, MASK[rows], config, TOTALS, **chosen).loss)
    torch.testing.assert_close(sum(shares), expected)
    torch.stack(shares).sum().backward()
    expected.backward()
    torch.testing.assert_close(split.grad, whole.grad)


def test_bnpo_takes_the_mean_of_each_micro_batch_by_its_share_of_sequences() -> None:
    config = PRESETS["trl-1.16/bnpo"].loss
    halves = [
        policy_loss(CURRENT[rows], OLD[rows], advantage()[rows], MASK[rows], config, Totals(2, 0)).loss
        for rows in ([0, 1], [2, 3])
    ]
    shares = [
        policy_loss(CURRENT[rows], OLD[rows], advantage()[rows], MASK[rows], config, TOTALS).loss
        for rows in ([0, 1], [2, 3])
    ]
    torch.testing.assert_close(sum(shares), sum(halves) / 2)


def test_padding_has_no_part_in_the_loss() -> None:
    for name in PRESETS:
        config = resolve_preset(name, {"beta": 0.1, "sampler_correction": "sequence_truncate"}).loss
        outputs = [
            policy_loss(
                CURRENT + garbage * (1 - MASK),
                OLD,
                advantage(),
                MASK,
                config,
                TOTALS,
                reference_logprobs=REFERENCE,
                sampler_logprobs=OLD - garbage * (1 - MASK),
            ).loss
            for garbage in (0.0, 3.0)
        ]
        torch.testing.assert_close(outputs[0], outputs[1])


def one_token(ratio: float, given: float, config: LossConfig) -> float:
    logprob = torch.tensor([[ratio]]).log()
    one = torch.ones(1, 1)
    return policy_loss(logprob, torch.zeros(1, 1), torch.tensor([given]), one, config, Totals(1, 1)).loss.item()


def test_the_ratio_is_clipped_on_the_side_that_would_gain() -> None:
    config = LossConfig(epsilon_low=0.1, epsilon_high=0.3)
    assert one_token(2.0, 1.0, config) == pytest.approx(-1.3)
    assert one_token(0.5, -1.0, config) == pytest.approx(0.9)
    assert one_token(0.5, 1.0, config) == pytest.approx(-0.5)
    assert one_token(2.0, -1.0, config) == pytest.approx(2.0)


def test_delta_caps_the_unclipped_ratio() -> None:
    assert one_token(10.0, -1.0, LossConfig(delta=4.0)) == pytest.approx(4.0)


def test_dual_clip_bounds_the_loss_of_a_bad_token() -> None:
    assert one_token(10.0, -1.0, LossConfig(dual_clip=3.0)) == pytest.approx(3.0)
    assert one_token(10.0, 1.0, LossConfig(dual_clip=3.0)) == pytest.approx(-1.2)


def test_what_was_clipped_is_counted() -> None:
    given = torch.tensor([1.0, -1.0, 1.0, -1.0])
    ratio = torch.tensor([[2.0], [0.5], [0.5], [2.0]])
    output = policy_loss(
        ratio.log(), torch.zeros(4, 1), given, torch.ones(4, 1), LossConfig(), Totals(sequences=4, tokens=4)
    )
    assert output.clipped.item() == 2


SAMPLED = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
RECOMPUTED = torch.tensor([[2.0, 0.5, 1.0], [0.25, 4.0, 1.0]]).log()
IN_ROWS = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("token_truncate", [[1.5, 0.5, 1.0], [0.3, 1.5, 1.0]]),
        ("token_mask", [[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]]),
        ("sequence_truncate", [[1.0], [1.0]]),
        ("sequence_mask", [[1.0], [1.0]]),
    ],
)
def test_sampler_weights(correction: str, expected: list[list[float]]) -> None:
    fields = {"sampler_correction": correction, "sampler_correction_min": 0.3, "sampler_correction_max": 1.5}
    config = resolve_preset("trl-1.16/dapo", fields).loss
    torch.testing.assert_close(sampler_weights(RECOMPUTED, SAMPLED, IN_ROWS, config), torch.tensor(expected))


def test_a_sequence_far_from_its_sampler_is_truncated_or_dropped_as_a_whole() -> None:
    far = torch.tensor([[1.0, 1.0, 0.0]])
    for correction, expected in {"sequence_truncate": 3.0, "sequence_mask": 0.0}.items():
        config = resolve_preset("trl-1.16/dapo", {"sampler_correction": correction}).loss
        weights = sampler_weights(far, torch.zeros(1, 3), IN_ROWS[:1], config)
        assert weights.item() == pytest.approx(expected)


def test_the_sampler_correction_weighs_the_policy_loss_and_not_the_kl() -> None:
    fields = {"sampler_correction": "token_truncate", "sampler_correction_max": 0.5, "beta": 0.1}
    corrected = policy_loss(
        CURRENT,
        OLD,
        advantage(),
        MASK,
        resolve_preset("verl-0.9/grpo", fields).loss,
        TOTALS,
        reference_logprobs=REFERENCE,
        sampler_logprobs=OLD - 2,
    ).loss
    assert corrected.item() == pytest.approx(-0.161672 / 2 + 0.003664, abs=2e-6)


def test_missing_logprobs_are_refused() -> None:
    for config in (LossConfig(beta=0.1), LossConfig(sampler_correction="token_mask")):
        with pytest.raises(ValueError, match="log-probabilities"):
            policy_loss(CURRENT, OLD, advantage(), MASK, config, TOTALS)


# Every field has an effect, or is known to have none.

BASES: list[dict[str, Any]] = [
    {},
    {"kind": "cispo"},
    {"kind": "sapo"},
    {"kind": "cross_entropy"},
    {"kind": "cross_entropy", "beta": 0.1, "kl_bias_correction": True},
    {"ratio": "sequence"},
    {"aggregation": "constant"},
    {"beta": 0.1},
    {"sampler_correction": "token_truncate"},
    {"sampler_correction": "sequence_mask"},
]
OTHER: dict[str, Any] = {
    "kind": "sapo",
    "ratio": "sequence",
    "epsilon_low": 0.01,
    "epsilon_high": 0.01,
    "delta": 1.1,
    "dual_clip": 1.1,
    "cispo_min": 0.9,
    "cispo_max": 1.1,
    "sapo_tau_positive": 2.0,
    "sapo_tau_negative": 2.0,
    "aggregation": "sequence_mean",
    "constant_length": 99,
    "beta": 0.5,
    "kl_bias_correction": True,
    "sampler_correction": "sequence_truncate",
    "sampler_correction_min": 0.95,
    "sampler_correction_max": 1.05,
}


def gradient_of(config: LossConfig) -> torch.Tensor:
    """Of 24 drawn sequences, whose ratios and advantages go both ways."""
    rng = np.random.default_rng(0)
    old, noise = (
        -rng.exponential(size=(24, 6)),
        rng.normal(scale=0.3, size=(24, 1)) + rng.normal(scale=0.3, size=(24, 6)),
    )
    draws = [old + noise, old, rng.normal(size=24), old - noise / 2, old + noise[::-1] / 2]
    current, before, given, reference, sampled = (torch.from_numpy(values) for values in draws)
    current.requires_grad_()
    mask = torch.from_numpy(np.arange(6) < rng.integers(1, 7, size=(24, 1)))
    options = {"reference_logprobs": reference, "sampler_logprobs": sampled}
    policy_loss(current, before, given, mask, config, TOTALS, **options).loss.backward()
    assert current.grad is not None
    return current.grad


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("name", LossConfig.__struct_fields__)
def test_a_field_of_a_loss_changes_it_or_is_said_to_have_no_effect(base: dict[str, Any], name: str) -> None:
    other = OTHER[name]
    if base.get(name) == other:
        other = {"sapo": "clip", "sequence": "token", True: False}[other]
    changed = {**base, name: other}
    same = torch.equal(gradient_of(LossConfig(**base)), gradient_of(LossConfig(**changed)))
    assert same == (name in LossConfig(**changed).without_effect())
