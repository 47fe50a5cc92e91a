"""A group's candidates, compared with each other by a judge: ranked, or by twos."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import msgspec
import numpy as np

from agentlightning_judge.asking import Asker, Tally, gather_answers
from agentlightning_judge.questions import Candidate, Setting, Verdict, ask_comparison, ask_ranking
from agentlightning_judge.scores import pairs, parts, ranking_wins


class Compared(msgspec.Struct):
    """What came of it: ``wins`` (N, N) as in `agentlightning_judge.scores`, what the judge said of each candidate, and
    why some questions were not answered."""

    wins: np.ndarray
    reasons: list[list[str]]
    errors: list[str]

    def add_reasons(self, shown: Sequence[int], verdict: Verdict[object]) -> None:
        for place, reason in zip(shown, verdict.reasons, strict=True):
            if reason and reason not in self.reasons[place]:
                self.reasons[place].append(reason)


async def rank(asker: Asker, setting: Setting, candidates: Sequence[Candidate], tally: Tally) -> Compared:
    """Asks for rankings: ``samples`` of all candidates, or of parts of them, every second one in the reverse order.

    Two candidates that rankings put in opposite orders are a contradiction among the pairs that were ranked more than
    once.
    """
    count, config = len(candidates), setting.config
    shown: list[list[int]] = []
    for sample in range(config.samples):
        order = shuffled(candidates, sample // 2)
        shown += [part if sample % 2 == 0 else part[::-1] for part in parts(count, config.at_once, order)]
    repeated = {tuple(part): number for number, part in reversed(list(enumerate(shown)))}
    verdicts, errors = await gather_answers(
        asker.ask(
            ask_ranking(setting, [candidates[place] for place in part]),
            tally,
            seed=None if repeated[tuple(part)] == number else number,
        )
        for number, part in enumerate(shown)
    )
    compared = Compared(np.zeros((count, count)), [[] for _ in candidates], errors)
    better = np.zeros((count, count))
    for part, verdict in zip(shown, verdicts, strict=True):
        if verdict is None:
            continue
        at = np.ix_(part, part)
        won = ranking_wins(verdict.value)
        compared.wins[at] += won
        better[at] += won == 1.0
        compared.add_reasons(part, verdict)
    above = np.triu_indices(count, 1)
    met = (compared.wins + compared.wins.T)[above]
    tally.add(
        rankings=sum(verdict is not None for verdict in verdicts),
        pairs=int((met > 1).sum()),
        contradictions=int(((better > 0) & (better.T > 0))[above].sum()),
    )
    return compared


async def compare_pairs(asker: Asker, setting: Setting, candidates: Sequence[Candidate], tally: Tally) -> Compared:
    """Asks about pairs, each in both orders. Only what both answers say is a win, all else a tie; where one says that
    the first is better and the other that the second is, in the same place, that is a contradiction: the judge went by
    the order. A pair of which one answer is missing does not count."""
    count = len(candidates)
    chosen = pairs(count, setting.config.opponents, shuffled(candidates, 0))
    asked = [order for one, other in chosen for order in ((one, other), (other, one))]
    verdicts, errors = await gather_answers(
        asker.ask(ask_comparison(setting, [candidates[place] for place in order]), tally) for order in asked
    )
    compared = Compared(np.zeros((count, count)), [[] for _ in candidates], errors)
    for number, (one, other) in enumerate(chosen):
        forward, backward = verdicts[2 * number : 2 * number + 2]
        if forward is None or backward is None:
            continue
        contradicts = forward.value == backward.value != 0.5
        agree = forward.value == 1.0 - backward.value
        tally.add(pairs=1, contradictions=int(contradicts), first_preferred=int(contradicts and forward.value == 1.0))
        won = forward.value if agree else 0.5
        compared.wins[one, other] += won
        compared.wins[other, one] += 1.0 - won
        compared.add_reasons((one, other), forward)
        compared.add_reasons((other, one), backward)
    return compared


def shuffled(candidates: Sequence[Candidate], number: int) -> list[int]:
    """The ``number``-th random order, the same for the same candidates: what was asked once is found in the cache."""
    content = "".join(sorted(one.digest for one in candidates))
    seed = hashlib.blake2b(f"{number} {content}".encode(), digest_size=8).digest()
    order = sorted(range(len(candidates)), key=lambda place: candidates[place].digest)
    random.Random(int.from_bytes(seed, "big")).shuffle(order)
    return order
