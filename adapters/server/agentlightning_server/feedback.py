"""What users think of what an agent did: it becomes the reward ``feedback`` of the rollout, however late.

Each user's word is a span of the rollout, so that it can be seen and replaced; the reward is the mean over the users,
with the weight that the config of the rollout's run gives the reward ``feedback``, where it does.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import statistics
import time
from textwrap import shorten
from typing import Any

from agentlightning import semconv
from agentlightning.errors import StoreError
from agentlightning.records import Reward, Span
from agentlightning.store.base import Store
from agentlightning_server.errors import RequestError
from agentlightning_server.methods import Feedback

NAME = "feedback"
USER = "user.id"
"""OpenTelemetry's attribute for who it was."""
THUMBS = {"up": 1.0, "down": 0.0}
MAX_REASON = 2000
"""Characters."""


class FeedbackKeeper:
    """Gives the feedback that it gets to the rollouts of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._adding = asyncio.Lock()

    async def add(self, feedback: Feedback) -> dict[str, Any]:
        """Keeps one user's word; returns what the rollout's feedback and outcome are now.

        Raises `RequestError`: 400 without exactly one of score and thumbs, 404 for a rollout that is not there, 409 for
        one that has not finished.
        """
        score = _score_of(feedback)
        async with self._adding:  # the mean is of all that have come
            rollout = await self._store.rollout(feedback.rollout_id)
            if rollout is None:
                raise RequestError(404, f"there is no rollout {feedback.rollout_id} in this store")
            if not rollout.finished:
                raise RequestError(409, f"rollout {rollout.id} is {rollout.status}: give feedback when it has finished")
            spans = await self._store.spans(rollout.id, attempt=rollout.attempt)
            added = _span(feedback, score, rollout.attempt, spans)
            await asyncio.to_thread(self._store.add_spans, [added])
            await self._store.flush()
            words = [span for span in spans if span.name == NAME and USER in span.attributes and span.id != added.id]
            reward = _mean([*words, added], await self._weight(rollout.run_id))
            if not await self._store.add_rewards(rollout.id, rollout.attempt, [reward]):
                raise RequestError(409, f"rollout {rollout.id} is being run again: give feedback when it has finished")
            now = await self._store.rollout(rollout.id)
        if now is None:
            raise StoreError(f"rollout {rollout.id} was removed while it got its feedback")
        return {"rollout_id": now.id, "feedback": reward.value, "outcome": now.outcome}

    async def _weight(self, run_id: str) -> float:
        """That of the reward `NAME` in the config of a run; 1 where it says nothing of it."""
        run = await self._store.run(run_id)
        given = [] if run is None else run.config.get("reward") or []
        for entry in given if isinstance(given, list) else [given]:
            if isinstance(entry, dict) and entry.get("name") == NAME:
                return float(entry.get("weight", 1.0))
        return 1.0


def _score_of(feedback: Feedback) -> float:
    if (feedback.score is None) == (feedback.thumbs is None):
        raise RequestError(400, 'give one of "score" (a number) and "thumbs" ("up" or "down")')
    score = THUMBS[feedback.thumbs] if feedback.thumbs is not None else feedback.score
    if score is None or not math.isfinite(score):
        raise RequestError(400, f"score: expected a finite number, got {score}")
    return score


def _span(feedback: Feedback, score: float, attempt: int, spans: list[Span]) -> Span:
    user = feedback.user or ""
    id = hashlib.blake2b(f"{NAME}\0{feedback.rollout_id}\0{user}".encode(), digest_size=8).hexdigest()
    before = next((span for span in spans if span.id == id), None)
    now = time.time()
    return Span(
        id=id,
        rollout_id=feedback.rollout_id,
        attempt=attempt,
        index=max((span.index for span in spans), default=-1) + 1 if before is None else before.index,
        kind="reward",
        name=NAME,
        started_at=now,
        ended_at=now,
        attributes={semconv.EVALUATION_NAME: NAME, USER: user},
        reward=Reward(name=NAME, value=score, at=now, reason=feedback.comment),
    )


def _mean(words: list[Span], weight: float) -> Reward:
    """The reward of all words; its reason says who said what."""
    rewards = [(span.attributes[USER], span.reward) for span in words if span.reward is not None]
    said = [f"{user or 'a user'}: {reward.value:g}{_comment(reward)}" for user, reward in rewards]
    values = [reward.value for _, reward in rewards if reward.value is not None]
    reason = shorten("; ".join(said), MAX_REASON)
    return Reward(name=NAME, value=statistics.fmean(values), weight=weight, reason=reason)


def _comment(reward: Reward) -> str:
    return f" ({reward.reason})" if reward.reason else ""
