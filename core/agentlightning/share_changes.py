"""Whether a share has changed, tested as often as one looks: for failures that are watched while they happen.

Each try fails with a probability that nobody knows. A detector looks again and again for a time s at which that
probability changed, and stays quiet while it did not, however often it looks. For one s, the evidence is the ratio of
two likelihoods: the tries before and after s each with a probability of their own, averaged over all that it may be
(Jeffreys' prior: Krichevsky and Trofimov, IEEE Trans. Inf. Theory 27, 1981), over the likelihood under the one
probability that fits all of them best. The numerator is a probability of the whole sequence, the denominator at least
that of any unchanged share, so the ratio is at most a martingale that begins at 1, whatever the share is (Wasserman,
Ramdas and Balakrishnan, "Universal inference", PNAS 117, 2020). Their sum over s is at most n on average after n tries
(Shin, Ramdas and Rinaldo, "E-detectors", 2022, after Shiryaev and Roberts), and with Doob's inequality the probability
that it ever reaches n / α within n tries is α at most: no table, no calibration, no assumption but that tries are
independent. Leaving out some s, as is done for those long ago, makes the sum smaller and the statement no less true.
"""

from __future__ import annotations

import math

from agentlightning.formatting import format_p, format_time
from agentlightning.records import Fault, Purpose, Record
from agentlightning.store.tries import TryKind

FALSE_ALARMS = 0.01
"""The probability of an alarm within `TRIES` tries of a share that does not change, at most."""
TRIES = 10_000
DENSE = 64
"""So many of the latest times of a possible change are kept, half as many again of those before, and so on."""
LOOKS = 50
"""The next look is after a fiftieth more tries, `LONGEST_PAUSE` at most: what that delays is little beside the tries
that any test needs."""
LONGEST_PAUSE = 100


class ShareChange(Record, kw_only=True):
    """A share that changed beyond chance: after the first ``tried_before`` tries, most likely, of which
    ``failed_before`` failed; of the ``tried_since`` tries since, ``failed_since`` did.

    ``p_value`` bounds the probability of such evidence at any look so far, had nothing changed.
    """

    failed_before: int
    tried_before: int
    failed_since: int
    tried_since: int
    p_value: float

    @property
    def before(self) -> float:
        return self.failed_before / self.tried_before

    @property
    def since(self) -> float:
        return self.failed_since / self.tried_since


class FailureChange(Record, kw_only=True):
    """The share of a failure changed beyond chance: of rollouts that failed, or in which a step did.

    The failure is of the ``type``, whose fault is ``fault``, of rollouts of one run and ``purpose``: ``kind`` is
    ``rollout``, or the kind of the step, which the ``agent`` took with the tool or the model ``used``. A rollout counts
    once where a step of it failed so, and was tried where it took such a step at all. ``changed_at`` is when it most
    likely changed, ``noticed_at`` when that was clear, both in seconds since the epoch; ``change`` has the numbers.
    ``rollout_id`` is the last rollout that failed so.
    """

    run_id: str
    purpose: Purpose
    kind: TryKind
    agent: str | None = None
    used: str | None = None
    type: str
    fault: Fault
    change: ShareChange
    changed_at: float
    noticed_at: float
    rollout_id: str

    @property
    def rose(self) -> bool:
        return self.change.since > self.change.before

    def __str__(self) -> str:
        """``tool_error of search (agent solver) in 12.0 % of rollouts, up from 2.1 %: …``."""
        change = self.change
        of = f" of {self.used}" if self.used is not None else ""
        by = f" (agent {self.agent})" if self.agent is not None else ""
        return (
            f"{self.type}{of}{by} in {100 * change.since:.1f} % of rollouts, {'up' if self.rose else 'down'} from "
            f"{100 * change.before:.1f} %: {change.failed_since} of {change.tried_since} since "
            f"{format_time(self.changed_at)}, {change.failed_before} of {change.tried_before} before "
            f"(p {format_p(change.p_value)}); run {self.run_id}, {self.purpose}; agl show {self.rollout_id}"
        )


class ShareDetector:
    """Watches one share. It raises one alarm for a change, and then learns what is normal now from what comes after.

    Within ``tries`` tries of a share that does not change, the probability of an alarm is ``false_alarms`` at most.
    """

    def __init__(self, *, false_alarms: float = FALSE_ALARMS, tries: int = TRIES) -> None:
        if not 0 < false_alarms < 1 or tries < 1:
            raise ValueError(f"expected 0 < false_alarms < 1 ≤ tries, got {false_alarms} and {tries}")
        self._threshold = math.log(tries / false_alarms)
        self._begin()

    def _begin(self) -> None:
        self.tried = 0
        self.failed = 0
        self._next_look = 1
        self._looks = 0
        self._candidates: list[tuple[int, int, int, int]] = []
        """Times at which it may have changed: number of the look, tries and failures until then, and tries since the
        look before, for all of which it stands."""

    def add(self, failed: bool) -> ShareChange | None:
        """Counts one try; the change, where it is this one that shows it."""
        self.tried += 1
        self.failed += failed
        if self.tried < self._next_look:
            return None
        change = self._look() if self.failed else None
        if change is not None:
            self._begin()
            return change
        self._remember()
        return None

    def add_successes(self, count: int) -> None:
        """Counts tries of which none failed: of one where none has failed so far, they show no change."""
        if self.failed:
            raise ValueError("add_successes is for a detector that has seen no failure: use add")
        end = self.tried + count
        while self._next_look <= end:
            self.tried = self._next_look
            self._remember()
        self.tried = end

    def _remember(self) -> None:
        pause = min(max(1, self.tried // LOOKS), LONGEST_PAUSE)
        last = self._candidates[-1][1] if self._candidates else 0
        self._looks += 1
        self._candidates.append((self._looks, self.tried, self.failed, self.tried - last))
        self._candidates = [one for one in self._candidates if self._is_kept(one[0])]
        self._next_look = self.tried + pause

    def _is_kept(self, look: int) -> bool:
        """All of the latest, every second one of those before, every fourth …: decided by the number alone, for what is
        chosen by what came out could not be tested by it."""
        return look % (1 << ((self._looks - look) // DENSE).bit_length()) == 0

    def _look(self) -> ShareChange | None:
        unchanged = _log_likelihood(self.failed, self.tried)
        evidence = [
            math.log(weight)
            + _log_average(failed, tried)
            + _log_average(self.failed - failed, self.tried - tried)
            - unchanged
            for _, tried, failed, weight in self._candidates
        ]
        if not evidence or (total := _log_sum(evidence)) < self._threshold:
            return None
        _, tried, failed, _ = self._candidates[max(range(len(evidence)), key=evidence.__getitem__)]
        return ShareChange(
            failed_before=failed,
            tried_before=tried,
            failed_since=self.failed - failed,
            tried_since=self.tried - tried,
            p_value=min(1.0, math.exp(math.log(self.tried) - total)),
        )


def _log_average(failed: int, tried: int) -> float:
    """Log of the probability of so many failures in a given order, averaged over the share (Jeffreys' prior)."""
    return math.lgamma(failed + 0.5) + math.lgamma(tried - failed + 0.5) - math.lgamma(tried + 1) - math.log(math.pi)


def _log_likelihood(failed: int, tried: int) -> float:
    """Log of the same probability under the share that fits best: failed / tried."""
    return sum(count * math.log(count / tried) for count in (failed, tried - failed) if count)


def _log_sum(logs: list[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(one - most) for one in logs))
