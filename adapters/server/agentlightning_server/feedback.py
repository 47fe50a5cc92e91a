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
from agentlightning.records import Reward, Rollout, Span
from agentlightning.store.sqlite import AnsweredCall, SQLiteStore
from agentlightning_server.errors import RequestError
from agentlightning_server.keys import Grant
from agentlightning_server.methods import Feedback
from agentlightning_server.scope import RunOf

NAME = "feedback"
USER = "user.id"
"""OpenTelemetry's attribute for who it was."""
THUMBS = {"up": 1.0, "down": 0.0}
MAX_REASON = 2000
"""Characters."""


class FeedbackKeeper:
    """Gives the feedback that it gets to the rollouts of a store."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._adding = asyncio.Lock()

    async def call(self, feedback: Feedback, grant: Grant, run_of: RunOf) -> AnsweredCall | None:
        """The call whose response the feedback names, among those that the key is for; None where it names a rollout
        alone. Raises `RequestError`: 400 where it names neither, 404 where there is no such call, 409 where it may be
        one of several rollouts'."""
        if feedback.response_id is None:
            if feedback.rollout_id is None:
                raise RequestError(400, 'say what it is about: "rollout_id", or "response_id", the id of an answer')
            return None
        found = [
            call
            for call in await self._store.answered_calls(feedback.response_id)
            if feedback.rollout_id in (None, call.rollout_id) and await _is_granted(grant, call, run_of)
        ]
        if not found:
            of = "" if feedback.rollout_id is None else f" of rollout {feedback.rollout_id}"
            raise RequestError(
                404,
                f"no call{of} that this key is for was answered with the id {feedback.response_id}: give the id that "
                "the client saw, or the rollout's",
            )
        if len({call.rollout_id for call in found}) > 1:
            raise RequestError(
                409, f"calls of several rollouts were answered with the id {feedback.response_id}: add rollout_id"
            )
        return max(found, key=lambda call: call.attempt)

    async def add(self, feedback: Feedback, rollout_id: str, call: AnsweredCall | None = None) -> dict[str, Any]:
        """Keeps one user's word on a rollout, or on the response that a ``call`` of its got; returns what the rollout's
        feedback and outcome are now.

        Raises `RequestError`: 400 without exactly one of score and thumbs, 404 for a rollout that is not there, 409 for
        one that has not finished, or has been run again since it got that response.
        """
        score = _score_of(feedback)
        async with self._adding:  # the mean is of all that have come
            rollout = await self._store.rollout(rollout_id)
            if rollout is None:
                raise RequestError(404, f"there is no rollout {rollout_id} in this store")
            if call is not None and call.attempt != rollout.attempt:
                raise RequestError(
                    409,
                    f"the response is one of attempt {call.attempt} of rollout {rollout.id}, which is at attempt "
                    f"{rollout.attempt}: what came of an earlier attempt counts for nothing",
                )
            if not rollout.finished:
                raise RequestError(409, f"rollout {rollout.id} is {rollout.status}: give feedback when it has finished")
            spans = await self._store.spans(rollout.id, attempt=rollout.attempt)
            added = _span(feedback, score, rollout, spans, call)
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


async def _is_granted(grant: Grant, call: AnsweredCall, run_of: RunOf) -> bool:
    if grant.rollout is not None:
        return call.rollout_id == grant.rollout
    return grant.run is None or await run_of(call.rollout_id) == grant.run


def _span(feedback: Feedback, score: float, rollout: Rollout, spans: list[Span], call: AnsweredCall | None) -> Span:
    user = feedback.user or ""
    about = rollout.id if call is None else f"{rollout.id}\0{call.span_id}"
    id = hashlib.blake2b(f"{NAME}\0{about}\0{user}".encode(), digest_size=8).hexdigest()
    before = next((span for span in spans if span.id == id), None)
    now = time.time()
    return Span(
        id=id,
        rollout_id=rollout.id,
        attempt=rollout.attempt,
        parent_id=call.span_id if call is not None else None,
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
