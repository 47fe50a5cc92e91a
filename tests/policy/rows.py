"""Hand-made rows for the tests of batches and log-probabilities."""

from __future__ import annotations

import numpy as np

from agentlightning.training_rows import TrainingRow


def training_row(
    token_ids: list[int], trained: list[int], *, rollout: str = "r", temperature: float = 1.0
) -> TrainingRow:
    """A row whose tokens at the places ``trained`` were written by the policy."""
    mask = np.zeros(len(token_ids), np.bool_)
    mask[trained] = True
    return TrainingRow(
        rollout_id=rollout,
        policy="policy",
        token_ids=np.array(token_ids, np.int32),
        mask=mask,
        logprobs=np.where(mask, -0.5, 0).astype(np.float32),
        advantages=np.zeros(len(token_ids), np.float32),
        temperature=temperature,
    )


def rollouts(seed: int = 0, *, groups: int = 3, size: int = 4, vocabulary: int = 300) -> list[TrainingRow]:
    """Groups of rollouts: a shared system prompt, a group's prompt, answers of several lengths, some continued with
    a second turn, one repeated to the letter, one that is the beginning of another."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> list[int]:
        return rng.integers(0, vocabulary, count).tolist()

    system = draw(9)
    rows = []
    for group in range(groups):
        prompt = system + draw(5)
        answers = [draw(int(rng.integers(2, 9))) for _ in range(size)]
        answers[1] = answers[0][:2]
        answers[-1] = list(answers[0])
        for member, answer in enumerate(answers):
            ids = prompt + answer
            trained = list(range(len(prompt), len(ids)))
            if member == 2:
                tool, second = draw(3), draw(4)
                trained += range(len(ids) + 3, len(ids) + 7)
                ids = ids + tool + second
            rows.append(training_row(ids, trained, rollout=f"{group}.{member}", temperature=(1.0, 0.7)[group % 2]))
    return rows
