"""Log-probabilities and entropy from logits, against torch's own, in float64 where that is the judge.

Axes: P predictors, V vocabulary, E targets.
"""

import pytest
import torch
from torch import Tensor

from agentlightning_policy import softmax
from agentlightning_policy.softmax import target_logprobs

PREDICTORS = torch.tensor([0, 0, 1, 3, 3, 3, 4])
TARGETS = torch.tensor([5, 6, 0, 9, 9, 2, 10])


def example(seed: int, *, tempered: bool, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 11, generator=generator) * scale
    return logits, torch.tensor([1.0, 0.5, 1.0, 2.0, 0.7]) if tempered else torch.ones(5)


def plainly(logits: Tensor, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    logprobs = torch.log_softmax(logits.double() / temperatures[:, None], dim=-1)
    entropies = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs[PREDICTORS, TARGETS], entropies[PREDICTORS].sum()


@pytest.mark.parametrize("tempered", [False, True])
@pytest.mark.parametrize("scale", [3.0, 60.0])
@pytest.mark.parametrize("block", [1, 25, 2**20])
def test_values_and_gradient(monkeypatch: pytest.MonkeyPatch, tempered: bool, scale: float, block: int) -> None:
    monkeypatch.setattr(softmax, "BLOCK", block)
    logits, temperatures = example(0, tempered=tempered, scale=scale)
    weights = torch.linspace(-1, 2, len(TARGETS))
    judge = logits.clone().double().requires_grad_()
    expected, expected_entropy = plainly(judge, temperatures)
    (expected * weights).sum().backward()

    asked = logits.clone().requires_grad_()
    found, entropy = target_logprobs(asked * 1.0, temperatures, PREDICTORS, TARGETS)
    (found * weights).sum().backward()

    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy.float(), atol=1e-5, rtol=1e-5)
    assert asked.grad is not None
    assert judge.grad is not None
    torch.testing.assert_close(asked.grad, judge.grad.float(), atol=1e-6, rtol=1e-4)


def test_the_entropy_carries_no_gradient() -> None:
    logits, temperatures = example(1, tempered=True)
    _, entropy = target_logprobs(logits.requires_grad_() * 1.0, temperatures, PREDICTORS, TARGETS)
    assert not entropy.requires_grad


def test_what_is_asked_without_gradient_is_the_same() -> None:
    logits, temperatures = example(2, tempered=True)
    with torch.no_grad():
        found, _ = target_logprobs(logits.clone(), temperatures, PREDICTORS, TARGETS)
    torch.testing.assert_close(found, plainly(logits, temperatures)[0].float(), atol=1e-5, rtol=1e-5)
