"""Micro-batches: shared prefixes once, nothing lost, nothing depending on order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from policy.rows import rollouts, training_row

from agentlightning.errors import AlgorithmError
from agentlightning_policy.batches import Batch, make_batches


def rebuilt(batch: Batch, predictor: int) -> list[int]:
    """What a packed token sees: the segments above its own, and its own up to itself."""
    segment = next(place for place, end in enumerate(batch.ends) if predictor < end)
    assert batch.positions[predictor] + 1 == sum(
        min(batch.ends[place], predictor + 1) - batch.starts[place] for place in batch.paths[segment]
    )
    return [
        token
        for place in batch.paths[segment]
        for token in batch.token_ids[batch.starts[place] : min(batch.ends[place], predictor + 1)].tolist()
    ]


def test_every_trained_token_is_predicted_from_just_the_tokens_before_it() -> None:
    rows = rollouts()
    for batch in make_batches(rows, 10_000):
        for index, column, predictor, target in zip(
            batch.entry_rows, batch.entry_columns, batch.entry_predictors, batch.targets, strict=True
        ):
            row = batch.rows[index]
            at = int(np.flatnonzero(row.mask)[column])
            assert rebuilt(batch, int(batch.predictors[predictor])) == row.token_ids[:at].tolist()
            assert target == row.token_ids[at]
            assert batch.temperatures[predictor] == pytest.approx(row.temperature)


def test_each_distinct_prefix_is_there_once() -> None:
    rows = rollouts()
    (batch,) = make_batches(rows, 10_000)
    prefixes = {tuple(row.token_ids[: end + 1].tolist()) for row in rows for end in range(len(row.token_ids))}
    assert len(batch.token_ids) == len(prefixes)


@pytest.mark.parametrize("budget", [1, 30, 60, 100])
def test_no_batch_exceeds_the_budget_unless_one_row_does_and_no_row_is_lost(budget: int) -> None:
    rows = rollouts()
    batches = make_batches(rows, budget)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(len(rows)))
    assert all(len(batch.token_ids) <= budget or len(batch.rows) == 1 or budget == 1 for batch in batches)


def test_the_rows_of_a_group_are_neighbours() -> None:
    rows = rollouts(groups=4)
    groups = [index // 4 for batch in make_batches(rows, 60) for index in batch.indices]
    assert sum(first != second for first, second in pairwise(groups)) == 3


def test_the_order_of_the_rows_changes_no_batch() -> None:
    rows = rollouts()
    shuffled = [rows[place] for place in np.random.default_rng(1).permutation(len(rows))]
    for first, second in zip(make_batches(rows, 60), make_batches(shuffled, 60), strict=True):
        assert [row.rollout_id for row in first.rows] == [row.rollout_id for row in second.rows]
        np.testing.assert_array_equal(first.token_ids, second.token_ids)
        np.testing.assert_array_equal(first.targets, second.targets)


def test_rows_without_trained_tokens_are_left_out() -> None:
    (batch,) = make_batches([training_row([1, 2, 3], []), training_row([1, 2, 4], [2])], 100)
    assert batch.indices == [1]
    assert make_batches([training_row([1, 2, 3], [])], 100) == []


def test_a_trained_first_token_is_refused() -> None:
    with pytest.raises(AlgorithmError, match="first token"):
        make_batches([training_row([1, 2], [0, 1], rollout="abc")], 100)


def test_values_of_trained_tokens_are_laid_out_with_the_mask() -> None:
    (batch,) = make_batches([training_row([5, 1, 2, 3], [1, 3]), training_row([5, 6, 7], [2])], 100)
    assert batch.mask.tolist() == [[1, 1], [1, 0]]
    assert batch.sampler_logprobs.tolist() == [[-0.5, -0.5], [-0.5, 0]]
