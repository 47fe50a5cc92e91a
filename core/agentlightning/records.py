"""The vocabulary as types.

Task          one input for the agent, with what its reward needs
Rollout       one run of the agent on one task
Span          one thing that happened in a rollout
Generation    what an ``llm`` span says: messages in, message out, and their tokens
Reward        one component of what a rollout, or a step of it, was worth
Failure       why a rollout or a step went wrong, and whose fault it was
Resource      what an algorithm changes, versioned: Policy, Prompt, ModelChoice or ModelRouter

Token arrays are one-dimensional numpy arrays in memory (ids int32, log-probabilities float32, masks
bool) and packed bytes at rest; `encode` and `decode` (`agentlightning.codec`) do that for every record.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
import numpy as np

from agentlightning import semconv
from agentlightning.codec import decode as decode
from agentlightning.codec import encode as encode
from agentlightning.redaction import redact

SpanKind = Literal["llm", "tool", "agent", "retrieval", "handoff", "reward", "annotation"]
Provenance = Literal["exact", "text"]
RolloutStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Fault = Literal["agent", "infrastructure"]
Purpose = Literal["train", "evaluate", "validate", "branch", "check", "observe"]
"""What a rollout is for. ``validate``: to choose weights by, so it is no part of what is reported; ``branch``: to see
what a state of another is worth; ``check``: the first ones, which count for nothing; ``observe``: an agent ran
elsewhere, and was recorded."""

FINAL_STATUSES: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


_deterministic = msgspec.msgpack.Encoder(order="deterministic")


def new_id() -> str:
    """16 hexadecimal digits, the length of an OpenTelemetry span id."""
    return os.urandom(8).hex()


class Record(msgspec.Struct, omit_defaults=True):
    """Base of every record: defaults are left out at rest."""


class Task(Record, kw_only=True):
    """One input for the agent, with what its reward needs.

    ``input`` is handed to the agent as it is; ``expected`` and ``metadata`` are for rewards only.
    """

    id: str
    input: Any
    expected: Any = None
    metadata: dict[str, Any] = {}


class Failure(Record, kw_only=True):
    """Why something went wrong, and whose fault it was.

    ``type`` is a stable word (``timeout``, ``agent_error``, ``tool_error``, ``context_too_long``,
    ``engine_unavailable``, ``rate_limited``, ``reward_error``, ``cancelled`` …) that rewards and reports
    may count on. An ``infrastructure`` failure is retried and then left out of its group; the agent's
    own failures keep the reward that the reward plugins give them. ``where`` is the ``file:line`` of the user's
    own code that it came from (`agentlightning.tracebacks.origin`). No secret stands in its texts, whatever it is
    made of (`agentlightning.redaction`).
    """

    type: str
    message: str
    fault: Fault = "agent"
    exception: str | None = None
    traceback: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        self.message = redact(self.message)
        if self.traceback is not None:
            self.traceback = redact(self.traceback)


class Reward(Record, kw_only=True):
    """One component of what a rollout, or with ``step`` one step of it, was worth.

    ``value`` is None where the component cannot be scored: never zero in its place. ``span_id`` names the step: a
    reward that has one is a step reward. A step reward without one was given under no span, at the time ``at``.

    ``metrics`` are numbers of how it was given, which add up over rollouts: of a reward that asks a model, ``calls``,
    ``input_tokens``, ``output_tokens`` and ``dollars``. A group's are spread over its rollouts.
    """

    name: str
    value: float | None
    weight: float = 1.0
    step: bool = False
    span_id: str | None = None
    at: float = msgspec.field(default_factory=time.time)
    reason: str | None = None
    metrics: dict[str, float] = {}

    def __post_init__(self) -> None:
        self.step = self.step or self.span_id is not None


class Usage(Record, kw_only=True):
    """Tokens of one model call, as the endpoint counted them."""

    input_tokens: int = 0
    output_tokens: int = 0


class Generation(Record, kw_only=True):
    """What an ``llm`` span says.

    ``messages``, ``tools`` and ``response`` are in the shape of the OpenAI chat API (a responses call is
    translated to it). ``prompt_ids`` (P,), ``response_ids`` (R,) and ``logprobs`` (R,) are present only
    where ``provenance`` is ``exact``: never made up. ``logprobs`` are those of the sampled tokens, of the
    softmax of logits divided by ``temperature``, before any top-p or top-k cut.
    """

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    response: dict[str, Any] | None = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    provenance: Provenance = "text"
    prompt_ids: np.ndarray | None = None
    response_ids: np.ndarray | None = None
    logprobs: np.ndarray | None = None
    temperature: float = 1.0
    policy: str | None = None
    policy_version: int | None = None

    @property
    def exact_tokens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """``prompt_ids``, ``response_ids`` and ``logprobs``; None where they are not exact or nothing was written."""
        if self.provenance != "exact" or self.prompt_ids is None or self.response_ids is None or self.logprobs is None:
            return None
        return (self.prompt_ids, self.response_ids, self.logprobs) if len(self.response_ids) else None


class Span(Record, kw_only=True):
    """One thing that happened in a rollout.

    ``index`` is its place in the order in which spans began, from 0, within the rollout's attempt.
    ``attributes`` use the OpenTelemetry GenAI names (`agentlightning.semconv`). Times are seconds since
    the epoch. ``agent`` is the name of the agent that acted, as its framework knows it.
    """

    id: str = msgspec.field(default_factory=new_id)
    rollout_id: str
    attempt: int = 1
    parent_id: str | None = None
    index: int = 0
    kind: SpanKind
    name: str
    agent: str | None = None
    started_at: float = msgspec.field(default_factory=time.time)
    ended_at: float | None = None
    attributes: dict[str, Any] = {}
    generation: Generation | None = None
    reward: Reward | None = None
    failure: Failure | None = None


class Replay(Record, kw_only=True):
    """Which rollout another repeats: its first ``calls`` calls of a policy get the answers that they got in that
    attempt, and what follows is sampled afresh."""

    rollout_id: str
    attempt: int
    calls: int


class Rollout(Record, kw_only=True):
    """One run of the agent on one task.

    ``id`` is derived from what the rollout is for (run, collection, task, sample), so asking for the same work
    twice finds what is there. ``group_id`` names the rollouts compared with each other. ``resources``
    maps each resource's name to the digest under which the store holds what the rollout runs with.

    ``step`` is the training step that the rollout belongs to, from 1; of an evaluation, how many were finished before
    it. ``variant`` tells evaluations of one step apart (``sampled``, ``greedy``). ``collection`` is the name, unique
    in the run, of all that was asked for at once. One that begins like another says which it ``replays``.
    """

    id: str
    run_id: str
    group_id: str
    task_id: str
    purpose: Purpose
    step: int = 0
    variant: str = ""
    collection: str = ""
    sample: int = 0
    attempt: int = 0
    replays: Replay | None = None
    status: RolloutStatus = "queued"
    resources: dict[str, str] = {}
    output: Any = None
    rewards: list[Reward] = []
    failure: Failure | None = None
    created_at: float = msgspec.field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    failed_attempts: list[Failure] = []

    @property
    def outcome(self) -> float | None:
        """What the whole rollout was worth: the weighted sum of its rewards without those of steps. It is what is
        reported, compared and promoted on.

        None where nobody gave the whole a reward (step rewards alone say nothing of it), and where one of its
        components has no value, or the sum is not finite: it cannot be scored.
        """
        return _weighted_sum([part for part in self.rewards if not part.step])

    @property
    def total_reward(self) -> float | None:
        """The outcome and the step rewards together: what training learns from. None as `outcome` is, over all
        rewards; a rollout that has only step rewards has the sum of those."""
        return _weighted_sum(self.rewards)

    def add_rewards(self, rewards: Iterable[Reward], failure: Failure | None = None) -> None:
        """Adds rewards, each in the place of those of its name and span; and why one has no value, where nothing else
        went wrong."""
        added = list(rewards)
        replaced = {(reward.name, reward.span_id) for reward in added}
        kept = [reward for reward in self.rewards if (reward.name, reward.span_id) not in replaced]
        self.rewards = [*kept, *added]
        if self.failure is None:
            self.failure = failure

    @property
    def counts(self) -> bool:
        """Whether the rollout is part of what its run did: the one that only checks is not."""
        return self.purpose != "check"

    @property
    def finished(self) -> bool:
        return self.status in FINAL_STATUSES

    @property
    def is_scorable(self) -> bool:
        """Whether it counts in reports and evaluations: it ran to its end, and its outcome is known."""
        return self.ran_to_its_end and self.outcome is not None

    @property
    def is_trainable(self) -> bool:
        """Whether it belongs in its group: it ran to its end, and its total reward is known."""
        return self.ran_to_its_end and self.total_reward is not None

    @property
    def ran_to_its_end(self) -> bool:
        """Whether it has ended by what the agent did: nobody cancelled it, and no infrastructure broke it."""
        infrastructure = self.failure is not None and self.failure.fault == "infrastructure"
        return self.status in ("succeeded", "failed") and not infrastructure


def _weighted_sum(rewards: list[Reward]) -> float | None:
    values = [part.weight * part.value for part in rewards if part.value is not None]
    if not values or len(values) < len(rewards):
        return None
    try:
        total = math.fsum(values)  # exact, so that step rewards which cancel leave the outcome as it is
    except (OverflowError, ValueError):
        return None
    return total if math.isfinite(total) else None


class Resource(Record, kw_only=True, tag_field="kind"):
    """What an algorithm changes, versioned. ``agents`` are the name patterns of the agents it is for."""

    name: str
    version: int = 0
    agents: tuple[str, ...] = ("*",)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, the same for the same content. Where a policy is served, or where what a router has
        learned lies, is no part of that: a run that goes on serves the same weights at another port."""
        content: dict[str, Any] = decode(encode(self), dict[str, Any])
        if isinstance(self, Policy):
            del content["base_url"]
        if isinstance(self, ModelRouter) and self.learned is not None:
            del content["path"]
        return hashlib.blake2b(_deterministic.encode(content), digest_size=8).hexdigest()


class Policy(Resource, kw_only=True, tag="policy"):
    """Weights and where they are served.

    ``sampling`` is set on every redirected request (``temperature``, ``top_p``, ``seed`` …), over what
    the agent asked for: training needs the tokens to be drawn from the policy itself.
    """

    model: str
    base_url: str
    api_key_env: str | None = None
    path: str | None = None
    sampling: dict[str, Any] = {}

    def sampled_with(self, **sampling: Any) -> Policy:
        """The same weights, sampled otherwise."""
        return msgspec.structs.replace(self, sampling={**self.sampling, **sampling})


class Prompt(Resource, kw_only=True, tag="prompt"):
    """What an agent's model is told before the conversation begins: a template (``{variable}`` fields) that takes the
    place of its system prompt (None: that stays as it is), and ``demonstrations`` that follow on it.

    With ``replaces`` only requests that have a system message equal to that text are changed, without it all. Each
    demonstration is a conversation in the shape of the OpenAI chat API, without a system message. A prompt that the
    agent's code asks for by name (`agentlightning.prompt`) has no ``agents``.
    """

    template: str | None = None
    variables: dict[str, str] = {}
    replaces: str | None = None
    demonstrations: tuple[list[dict[str, Any]], ...] = ()


class ModelChoice(Resource, kw_only=True, tag="model_choice"):
    """Which model answers an agent's calls, where it is served, and what it costs.

    Prices are in dollars per million tokens. ``base_url`` None keeps the endpoint of the agent's client.
    """

    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    input_price: float = 0.0
    output_price: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Dollars for ``usage``."""
        return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6


class ModelRouter(Resource, kw_only=True, tag="model_router"):
    """Which of several models answers an agent's calls, decided for each rollout by what the user says first in it.

    ``router`` names what decides, a plugin's or ``module:attribute`` (`agentlightning.model_routing.Router`). What it
    has learned is in the folder ``path``, whose content has the digest ``learned``. Each of ``choices`` has a name of
    its own, which stands in the span of each call that it answered.
    """

    choices: tuple[ModelChoice, ...]
    router: str
    path: str | None = None
    learned: str | None = None

    def chosen(self, call: Span) -> ModelChoice | None:
        """The choice that answered a recorded call; None where none of them did."""
        name = call.attributes.get(semconv.MODEL_CHOICE)
        return next((choice for choice in self.choices if choice.name == name), None)


AnyResource = Policy | Prompt | ModelChoice | ModelRouter
