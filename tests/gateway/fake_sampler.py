"""A sampler of a stranger: it writes a fixed text, and has no torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from agentlightning.sampler import LogprobsMode, ModelInfo, SampledToken, SamplingParams


class FakeSampler:
    """Writes ``text``, token by token, each with the logprob -0.5, and then ends its turn."""

    def __init__(self, tokenizer: Any, text: str, *, logprobs: LogprobsMode = "tempered", version: int = 7) -> None:
        self.info = ModelInfo(
            name="fake", context_length=512, vocabulary=len(tokenizer), logprobs=logprobs, tokenizer="given by the test"
        )
        self.ids = [*tokenizer.encode(text), tokenizer.eos_token_id]
        self.version = version
        self.closed = 0
        self.asked: list[SamplingParams] = []

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        self.asked.append(params)
        try:
            for id in self.ids:
                yield SampledToken(id, -0.5, self.version)
        finally:
            self.closed += 1
