"""A share that is watched: no false alarms, however often it is looked at, and one alarm for a change."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlightning.share_changes import FALSE_ALARMS, TRIES, ShareChange, ShareDetector


def alarms(tries: Iterable[bool], detector: ShareDetector | None = None) -> list[tuple[int, ShareChange]]:
    detector = detector or ShareDetector()
    changes = ((number, detector.add(failed)) for number, failed in enumerate(tries, 1))
    return [(number, change) for number, change in changes if change is not None]


def drawn(seed: int, *parts: tuple[float, int]) -> list[bool]:
    rng = random.Random(seed)
    return [rng.random() < share for share, count in parts for _ in range(count)]


def test_the_probability_of_a_false_alarm_is_what_was_asked_for_at_most_over_all_sequences() -> None:
    length, false_alarms = 12, 0.5
    alarming = [
        sum(sequence)
        for sequence in product((False, True), repeat=length)
        if alarms(sequence, ShareDetector(false_alarms=false_alarms, tries=length))
    ]
    for share in (0.05, 0.2, 0.5, 0.8):
        probability = sum(share**failed * (1 - share) ** (length - failed) for failed in alarming)
        assert 0 < probability <= false_alarms


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_a_share_that_does_not_change_raises_no_alarm_in_ten_thousand_looks(share: float) -> None:
    assert (TRIES, FALSE_ALARMS) == (10_000, 0.01)
    assert [alarms(drawn(seed, (share, TRIES))) for seed in range(3)] == [[]] * 3


@pytest.mark.parametrize(("before", "since"), [(0.02, 0.1), (0.1, 0.02)], ids=["rises", "falls"])
def test_a_change_is_noticed_once_and_in_time(before: float, since: float) -> None:
    for seed in range(6):
        [(noticed, change)] = alarms(drawn(seed, (before, 2000), (since, 4000)))
        assert 2000 < noticed <= 2000 + 700
        assert abs(change.tried_before - 2000) < 250
        assert change.tried_before + change.tried_since == noticed
        assert abs(change.before - before) < 0.02
        assert abs(change.since - since) < 0.05
        assert change.p_value <= FALSE_ALARMS


def test_after_an_alarm_what_comes_then_is_normal_and_another_change_is_noticed_too() -> None:
    changes = alarms(drawn(1, (0.02, 2000), (0.2, 3000), (0.02, 2000)))
    assert [change.since > change.before for _, change in changes] == [True, False]


def test_what_never_failed_is_known_without_being_counted_one_by_one() -> None:
    for count in (0, 1, 49, 50, 51, 777, 12_345):
        quick, slow = ShareDetector(), ShareDetector()
        quick.add_successes(count)
        assert alarms([False] * count, slow) == []
        failing = [True] * 100
        assert alarms(failing, quick) == alarms(failing, slow)


def test_a_detector_that_has_seen_a_failure_takes_tries_one_by_one() -> None:
    detector = ShareDetector()
    detector.add(True)
    with pytest.raises(ValueError, match="has seen no failure"):
        detector.add_successes(3)


@pytest.mark.parametrize("options", [{"false_alarms": 0.0}, {"false_alarms": 1.0}, {"tries": 0}])
def test_a_rate_of_false_alarms_that_is_none_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 < false_alarms < 1"):
        ShareDetector(**options)  # type: ignore[arg-type]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=8))
def test_every_try_is_counted_once_in_what_an_alarm_says(blocks: list[tuple[bool, int]]) -> None:
    tries = [failed for failed, count in blocks for _ in range(count)]
    told = 0
    for noticed, change in alarms(tries):
        mine = tries[told:noticed]
        assert change.tried_before + change.tried_since == len(mine)
        assert change.failed_before == sum(mine[: change.tried_before])
        assert change.failed_before + change.failed_since == sum(mine)
        assert 0 < change.p_value <= FALSE_ALARMS
        told = noticed


def test_a_detector_keeps_few_of_the_times_that_it_looked_at() -> None:
    detector = ShareDetector()
    detector.add_successes(1_000_000)
    assert len(detector._candidates) < 700
