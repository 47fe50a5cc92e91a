"""The reward ``judge``: what a language model says of rollouts by a rubric."""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections.abc import Sequence

import numpy as np

from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning_judge.asking import Asker, Tally, gather_answers
from agentlightning_judge.candidates import Shown, show_rollout, show_value
from agentlightning_judge.comparing import Compared, compare_pairs, rank
from agentlightning_judge.config import JudgeConfig, check
from agentlightning_judge.questions import Candidate, Setting, ask_score, candidate
from agentlightning_judge.scores import expected_wins, log_strengths, mid_ranks, win_rates

logger = logging.getLogger(__name__)

MAX_REASON = 2000
"""Characters of a reward's reason."""
SCORED_ALONE = frozenset({"evaluate", "validate", "check"})
"""Purposes whose rollouts are scored one by one in every mode: they are compared with those of other versions, and
among themselves the mean rank is ½ however good they are."""
MANY_CONTRADICTIONS = 0.3
ENOUGH_PAIRS = 20


class Judge:
    """A language model's verdict on rollouts, in [0, 1], with its reasons; None where there is none, never 0.

    With ``mode: absolute`` it is made as a `RolloutJudge`, else as a `GroupJudge`. What it asks belongs to no rollout.
    Raises `ConfigError` for a config that makes no sense.
    """

    Config = JudgeConfig

    def __new__(cls, config: JudgeConfig) -> Judge:
        if cls is Judge:
            cls = RolloutJudge if config.mode == "absolute" else GroupJudge
        return super().__new__(cls)

    def __init__(self, config: JudgeConfig) -> None:
        check(config)
        self._config = config
        self._asker = Asker(config)
        self._pairs = self._contradictions = 0
        self._warned = False

    def _show(self, rollout: Rollout, spans: Sequence[Span]) -> Shown:
        return show_rollout(rollout, spans, what=self._config.show, max_characters=self._config.max_characters)

    def _setting(self, task: Task) -> Setting:
        length = self._config.max_characters
        shows_expected = self._config.show_expected and task.expected is not None
        return Setting(
            self._config, show_value(task.input, length), show_value(task.expected, length) if shows_expected else None
        )

    async def _score(self, setting: Setting, shown: Shown) -> Reward:
        """The mean of the scores that one rollout is given."""
        tally, question = Tally(), ask_score(setting, candidate(shown.text))
        verdicts, errors = await gather_answers(
            self._asker.ask(question, tally, seed=sample or None) for sample in range(self._config.scored_samples)
        )
        given = [verdict for verdict in verdicts if verdict is not None]
        tally.add(scores=len(given))
        if not given:
            return _reward(None, "; ".join(errors), shown, tally.spread(1)[0])
        low, high = self._config.scale
        scores = ", ".join(f"{low + verdict.value * (high - low):g}" for verdict in given)
        said = " ".join(dict.fromkeys(reason for verdict in given for reason in verdict.reasons if reason))
        value = statistics.fmean(verdict.value for verdict in given)
        return _reward(value, f"{scores} of {low:g} to {high:g}. {said}", shown, tally.spread(1)[0])


class RolloutJudge(Judge):
    """Scores each rollout by itself."""

    async def __call__(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> Reward:
        return await self._score(self._setting(task), self._show(rollout, spans))


class GroupJudge(Judge):
    """Compares the rollouts of a group; scores each by itself where there is none to compare it with, and in
    evaluations."""

    async def __call__(self, rollouts: Sequence[Rollout], task: Task, spans: Sequence[Sequence[Span]]) -> list[Reward]:
        setting = self._setting(task)
        shown = [self._show(rollout, of_one) for rollout, of_one in zip(rollouts, spans, strict=True)]
        if len(rollouts) < 2 or any(rollout.purpose in SCORED_ALONE for rollout in rollouts):
            return list(await asyncio.gather(*(self._score(setting, one) for one in shown)))
        # Rollouts that look the same are one candidate: they get the same score, whatever the judge does.
        texts = sorted({one.text for one in shown})
        if len(texts) == 1:
            return [_reward(0.5, f"all {len(shown)} rollouts are the same to the judge", one, {}) for one in shown]
        tally = Tally()
        compared = await self._compare(setting, [candidate(text) for text in texts], tally)
        self._watch(tally)
        places = [texts.index(one.text) for one in shown]
        scores = self._scores(compared.wins, places)
        costs = tally.spread(len(shown))
        return [
            _reward(scores[index], _reason(compared, place, scores, index), shown[index], costs[index])
            for index, place in enumerate(places)
        ]

    async def _compare(self, setting: Setting, candidates: Sequence[Candidate], tally: Tally) -> Compared:
        ask = compare_pairs if self._config.mode == "pairwise" else rank
        return await ask(self._asker, setting, candidates, tally)

    def _scores(self, wins: np.ndarray, places: Sequence[int]) -> list[float | None]:
        """A score for each rollout, of the candidate at its place; None where that was compared with none."""
        was_compared = (wins + wins.T).sum(axis=1) > 0
        scored = [index for index, place in enumerate(places) if was_compared[place]]
        members = [places[index] for index in scored]
        if self._config.mode == "relative":
            values = mid_ranks(log_strengths(wins)[members])
        elif self._config.scores == "bradley_terry":
            values = expected_wins(log_strengths(wins)[members])
        else:
            values = win_rates(wins)[members]
        found: list[float | None] = [None] * len(places)
        for index, value in zip(scored, values, strict=True):
            found[index] = float(value)
        return found

    def _watch(self, tally: Tally) -> None:
        """Says once that the judge goes by the order in which it is shown candidates."""
        self._pairs += int(tally.get("pairs"))
        self._contradictions += int(tally.get("contradictions"))
        if not self._warned and self._pairs >= ENOUGH_PAIRS:
            share = self._contradictions / self._pairs
            if share > MANY_CONTRADICTIONS:
                self._warned = True
                logger.warning(
                    "the judge %s contradicted itself in %d of %d pairs, when they were shown in another order: those "
                    "count as ties; take a larger model, or a clearer rubric",
                    self._config.model.model,
                    self._contradictions,
                    self._pairs,
                )


def _reason(compared: Compared, place: int, scores: Sequence[float | None], index: int) -> str:
    own = scores[index]
    if own is None:
        return "; ".join(compared.errors)
    known = [score for score in scores if score is not None]
    better = sum(score > own for score in known)
    equal = sum(score == own for score in known)
    rank = f"{better + 1}" if equal == 1 else f"{better + 1} to {better + equal}"
    unanswered = f" ({len(compared.errors)} kinds of failure: {'; '.join(compared.errors)})" if compared.errors else ""
    return f"rank {rank} of {len(known)}{unanswered}. {' '.join(compared.reasons[place])}"


def _reward(value: float | None, reason: str, shown: Shown, metrics: dict[str, float]) -> Reward:
    if shown.left_out:
        reason = f"(the judge was not shown {shown.left_out} characters of it) {reason}"
    return Reward(name="", value=value, reason=reason.strip()[:MAX_REASON], metrics=metrics)
