"""How many runs of its own a canary takes until it is decided, and how often equal ones are.

    python tests/bench/canary.py

Outcomes are 0 or 1; a canary is looked at after each of its runs, `LOOKS` times, with the default thresholds.
"""

from __future__ import annotations

import numpy as np

from agentlightning.betting import block_differences, log_e_values
from agentlightning.config import PromoteConfig

LOOKS = 1000
CANARIES = 300
ALPHA = PromoteConfig().alpha


def differences(rng: np.random.Generator, canary: float, control: float, share: float) -> np.ndarray:
    """One for each of `LOOKS` canary runs: that of the block that ended with it, and 0, which changes nothing, where
    none did."""
    in_canary = rng.random(int(LOOKS / share * 1.5)) < share
    in_canary = in_canary[: int(np.nonzero(np.cumsum(in_canary) == LOOKS)[0][0]) + 1]
    outcomes = rng.random(len(in_canary)) < np.where(in_canary, canary, control)
    found = np.zeros(LOOKS)
    found[_ends(in_canary)] = block_differences(in_canary, outcomes)
    return found


def _ends(in_canary: np.ndarray) -> list[int]:
    """With which canary run each block ends."""
    ends, runs, held = [], 0, [False, False]
    for arm in in_canary.tolist():
        runs += arm
        held[arm] = True
        if all(held):
            ends.append(runs - 1)
            held = [False, False]
    return ends


def decided(differences: np.ndarray, alpha: float) -> np.ndarray:
    """After how many of its runs each canary is decided; infinite where it is not."""
    shown = log_e_values(differences) >= np.log(1 / alpha)
    return np.where(shown.any(axis=1), shown.argmax(axis=1) + 1.0, np.inf)


def main() -> None:
    rng = np.random.default_rng(0)
    print("without it, canary, share: rolled back (half, 95 % of them within), promoted as better (half, 95 % within)")
    for control, canary in ((0.8, 0.8), (0.8, 0.5), (0.8, 0.7), (0.8, 0.75), (0.5, 0.7)):
        for share in (0.1, 0.3):
            drawn = np.stack([differences(rng, canary, control, share) for _ in range(CANARIES)])
            worse, better = decided(-drawn, ALPHA / 2), decided(drawn, ALPHA)
            print(
                f"{control:.2f} {canary:.2f} {share:.0%}: "
                + ", ".join(
                    f"{np.isfinite(when).mean():.1%} ({_quantile(when, 0.5)}, {_quantile(when, 0.95)})"
                    for when in (worse, better)
                )
            )


def _quantile(when: np.ndarray, share: float) -> str:
    value = np.quantile(when, share, method="higher")
    return f"{value:.0f}" if np.isfinite(value) else f"over {LOOKS}"


if __name__ == "__main__":
    main()
