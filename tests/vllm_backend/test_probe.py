"""Whether what a replica gives for the probe can be of the weights that it was given."""

from __future__ import annotations

import numpy as np
from conftest import make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_vllm.probe import MEAN_BOUND, TOKENS, fault, probe_ids, probe_row


def drawn(seed: int, scale: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, TOKENS - 1)


OLD = drawn(0, 2.0) - 4.0


@given(st.integers(0, 1000), st.sampled_from([0.0, 1e-5, 1e-3, 0.03]), st.sampled_from([0.0, 1e-6, 1e-4, 0.01, 0.1]))
def test_new_weights_pass_whatever_the_rounding_and_the_step(seed: int, rounding: float, step: float) -> None:
    new = OLD + drawn(seed, step)
    given = new + drawn(seed + 1, rounding)
    before = OLD + drawn(seed + 2, rounding)
    assert fault(given, new, OLD, before) is None or (rounding == 0.0 and np.array_equal(given, before))


@given(st.integers(0, 1000), st.sampled_from([0.0, 1e-5, 1e-3, 0.03]))
def test_old_weights_are_noticed_where_rounding_does_not_hide_the_step(seed: int, rounding: float) -> None:
    new = OLD + drawn(seed, max(2 * rounding, 1e-4))
    stale = OLD + drawn(seed + 1, rounding)
    assert "nearer to those of the version before" in (fault(stale, new, OLD, None) or "")


def test_a_replica_that_says_the_very_same_has_not_changed() -> None:
    stale = OLD + drawn(1, 0.05)
    new = OLD + drawn(2, 0.005)  # a tenth of the rounding
    assert "it still serves the weights that it had" in (fault(stale, new, OLD, stale) or "")
    assert fault(stale, OLD, OLD, stale) is None


def test_other_weights_are_noticed() -> None:
    assert "it serves other weights" in (fault(OLD + 2 * MEAN_BOUND, OLD, None, None) or "")
    assert "it serves other weights" in (fault(np.full_like(OLD, np.nan), OLD, None, None) or "")
    assert fault(OLD + MEAN_BOUND / 2, OLD, None, None) is None


def test_weights_that_are_new_in_part_are_noticed() -> None:
    new = OLD + drawn(1, 0.07)
    half = OLD + 0.6 * (new - OLD)
    assert fault(half, new, OLD, None) is None
    assert "a part of its weights is not the present one" in (fault(half, new, OLD, None, 1e-5) or "")
    assert fault(new + drawn(2, 0.045), new, OLD, None, 0.04) is None


def test_the_probe_fits_the_context() -> None:
    tokenizer = make_tokenizer()
    assert len(probe_ids(tokenizer, 2048)) == TOKENS
    ids = probe_ids(tokenizer, 20)
    assert len(ids) == 19
    assert probe_row(ids, "p").trained_tokens == 18
