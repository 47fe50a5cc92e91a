"""Does a replica serve the weights that it was given? It is asked for the log-probabilities of a text that never
changes, and the trainer computes them, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentlightning.training_rows import TrainingRow

TEXT = """\
Tom has 23 apples and buys 48 more. How many apples does he have now? He has 23 + 48 = 71 apples. The weather in Paris
is sunny; in London it rains, and she sells sea shells by the sea shore. Who wrote the letter, and what did it say?
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
{"name": "search", "arguments": {"query": "capital of France", "limit": 3}} Paris is the capital, and its largest city.
"""
TOKENS = 128
MEAN_BOUND = 0.1
"""How far a replica's log-probabilities may be from the trainer's, in the mean: three times what vLLM in bfloat16 and a
trainer in float32 differ by, SmolLM2-135M on a CPU without arithmetic of that type."""
TOLD_APART = 8.0
"""How many standard deviations of the replica's own rounding two versions must be apart for it to be asked which of
them it serves: nearer ones are as good as the same."""
MORE_ROUNDING = 4.0
"""How many times as far from the trainer as the first time a replica may be: its arithmetic stays what it is, so that
further off is a part of it that was not renewed."""
NOTICEABLE = 1e-3
"""Root mean square of the difference of two versions above which a replica that says the very same has not changed."""


def probe_ids(tokenizer: Any, context_length: int) -> np.ndarray:
    """The tokens of the text (T,), as many as the context holds with one more."""
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    return np.array(ids[: min(TOKENS, context_length - 1)], np.int32)


def probe_row(ids: np.ndarray, policy: str) -> TrainingRow:
    """The probe as the trainer takes it: its log-probabilities are of every token but the first."""
    zeros = np.zeros(len(ids), np.float32)
    mask = np.arange(len(ids)) > 0
    return TrainingRow(
        rollout_id="probe", policy=policy, token_ids=ids, mask=mask, logprobs=zeros, advantages=zeros.copy()
    )


def fault(
    given: np.ndarray,
    new: np.ndarray,
    old: np.ndarray | None,
    before: np.ndarray | None,
    rounding: float | None = None,
) -> str | None:
    """Why what a replica gives cannot be of the new weights; None where it can.

    All are log-probabilities of the probe (T,): what the replica gives now and gave ``before``, and the trainer's under
    the ``new`` weights and the ``old``; ``rounding`` is how far apart the two were the first time. Versions that the
    replica's rounding hides from one another pass for the same.
    """
    distance = float(np.abs(given - new).mean())
    if not distance <= MEAN_BOUND:  # or it is not a number
        return (
            f"its log-probabilities are {distance:.3f} from the trainer's in the mean, more than the {MEAN_BOUND} of "
            "other arithmetic: it serves other weights"
        )
    if rounding is not None and rms(given - new) > max(MORE_ROUNDING * rounding, 2 * NOTICEABLE):
        return (
            f"its log-probabilities are {rms(given - new):.4f} from the trainer's (root mean square), and were "
            f"{rounding:.4f} at first: a part of its weights is not the present one"
        )
    if old is None:
        return None
    step = new - old
    apart = float(np.linalg.norm(step))
    if before is not None and apart > NOTICEABLE * len(step) ** 0.5 and np.array_equal(given, before):
        return "its log-probabilities are the very ones of before: it still serves the weights that it had"
    noise = min(rms(given - new), rms(given - old))
    if apart > 0 and apart >= TOLD_APART * noise:
        share = float((given - old) @ step) / apart**2  # 0 at the old weights, 1 at the new ones
        if share < 0.5:
            return f"its log-probabilities are nearer to those of the version before ({share:.2f} of the way)"
    return None


def rms(values: np.ndarray) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))
