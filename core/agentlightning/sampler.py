"""Sampler: what writes a policy's tokens, as a protocol.

What speaks HTTP, renders chats and parses tool calls stands in front of it and is written once
(`agentlightning_gateway`); what batches, caches and draws stands behind it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol, runtime_checkable

import msgspec
import numpy as np

from agentlightning.errors import PolicyError

MAX_TEMPERATURE = 10.0
"""Above, what is drawn is noise."""

LogprobsMode = Literal["tempered", "raw", "processed"]
"""What log-probabilities are of, over the whole vocabulary, before top-k, top-p and min-p cut it and with no penalty or
bias: ``tempered``, softmax(logits / temperature), which is what trainers compute again (temperature 0 counts as 1);
``raw``, softmax(logits). ``processed`` are ``tempered`` ones, but of what top-k, top-p and min-p have left."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a sampler serves.

    ``name`` is the model's name in an API, ``context_length`` counts tokens of prompt and answer together,
    ``vocabulary`` says how many token ids there are, ``tokenizer`` where its tokenizer lies (a folder or a hub name),
    ``end_ids`` which tokens end an answer beside those that the tokenizer and its chat template name.
    """

    name: str
    context_length: int
    vocabulary: int
    logprobs: LogprobsMode
    tokenizer: str
    end_ids: frozenset[int] = frozenset()


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the tokens of one answer are drawn. ``temperature`` 0 takes the likeliest token.

    ``top_k`` (0: off) leaves the likeliest k tokens, ``top_p`` the likeliest that hold so much of their mass, ``min_p``
    those at least so likely as the likeliest times it; in this order. The answer ends after one of ``stop_token_ids``,
    which is part of it, or after ``max_tokens``. ``top_logprobs`` likeliest tokens are told beside each.
    Without ``stream`` nobody looks at a token before the last is there, so all may come at once. ``rollout``, where it
    is known, is whose answer it is: its prompts begin alike, which whoever caches prefixes has a use for.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    max_tokens: int = 512
    stop_token_ids: frozenset[int] = frozenset()
    top_logprobs: int = 0
    stream: bool = True
    rollout: str | None = None


class SampledToken(msgspec.Struct, gc=False):
    """One token, its log-probability, the version of the weights that wrote it, and the likeliest
    ``(id, log-probability)`` at its position.

    There are hundreds of thousands at times, which the garbage collector need not look at: they refer to no others.
    """

    id: int
    logprob: float
    policy_version: int | None = None
    top: list[tuple[int, float]] = []


class SamplerUnavailableError(PolicyError):
    """The sampler stops, or cannot be reached: the request was not, or not wholly, answered; another time it may be."""


class Sampler(Protocol):
    """Prompt ids in, tokens out. Sharing prefixes and batching requests are its own business."""

    @property
    def info(self) -> ModelInfo:
        """What is served."""

    def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        """The tokens that follow ``prompt_ids`` (T,), as they come; to close the iterator cancels the rest.

        Raises `SamplerUnavailableError` where it cannot answer now, any other error where it failed.
        """


@runtime_checkable
class HoldsConnections(Protocol):
    """A sampler that keeps connections open, which belong to the event loop that it samples in."""

    async def aclose(self) -> None:
        """Closes those of the running event loop. Called there, by whoever has sampled, when it is done."""
