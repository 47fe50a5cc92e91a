"""``POST /v1/completions``: text that goes on, without a chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec

from agentlightning_policy.engine.api_chat import usage
from agentlightning_policy.engine.completions import Answer, Completions, Work, event
from agentlightning_policy.engine.protocol import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    ApiError,
    Asked,
    Sampled,
    StreamOptions,
    sampled,
)
from agentlightning_policy.engine.requests import decode, stop_strings
from agentlightning_policy.engine.sampling import Drawn
from agentlightning_policy.engine.sessions import Prompt

DEFAULT_MAX_TOKENS = 16
"""The API's own, for requests that name none."""
MAX_ANSWERS = 1024
"""Prompts times choices of one request."""


class TextRequest(Sampled, kw_only=True):
    """The body of a request. Prompts are text or token ids."""

    prompt: str | list[str | int | list[int]]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream_options: StreamOptions | None = None
    best_of: int | None = None
    add_special_tokens: bool | None = None

    def asked(self) -> Asked:
        """Raises `ApiError` for what the engine does not do."""
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ApiError(400, "best_of is not supported", param="best_of")
        return Asked(
            **sampled(self),
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            stops=stop_strings(self.stop),
            n=self.n or 1,
            top_logprobs=self.logprobs,
        )

    def prompts(self) -> list[str | list[int]]:
        """Raises `ApiError` where there is none, the list is of mixed kinds, or it asks for too many answers."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(isinstance(each, int) for each in self.prompt):
            return [[each for each in self.prompt if isinstance(each, int)]]
        prompts = [each for each in self.prompt if not isinstance(each, int)]
        if not prompts or len(prompts) != len(self.prompt):
            raise ApiError(400, "prompt: expected text, token ids, or a list of either", param="prompt")
        if len(prompts) * (self.n or 1) > MAX_ANSWERS:
            raise ApiError(400, f"prompt: expected at most {MAX_ANSWERS} prompts times choices", param="prompt")
        return prompts


class TextApi:
    """Completions of text, whole and streamed."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def read(self, body: bytes, rollout: str | None) -> tuple[TextRequest, Asked, list[Prompt]]:
        """The request and its prompts. Raises `ApiError`."""
        request = decode(body, TextRequest, self._completions.model)
        special = request.add_special_tokens is not False
        prompts = self._completions.text_prompts(request.prompts(), rollout, special=special)
        return request, request.asked(), prompts

    def whole(self, request: TextRequest, work: Work) -> dict[str, Any]:
        """The response, once it is complete. Safe to call from any thread."""
        choices = []
        for place, answer in enumerate(work.answers):
            finish = answer.generation.finish
            choice = self._choice(place, answer, self._completions.written(answer), answer.generation.tokens, finish)
            if work.asked.return_token_ids:
                choice["prompt_token_ids"] = answer.prompt.ids.tolist()
            choices.append(choice)
        return {**self._head(work), "choices": choices, "usage": usage(work)}

    async def chunks(self, request: TextRequest, work: Work) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first chunk is the last event."""
        texts = [self._completions.unfolding(answer) for answer in work.answers]
        closed = [False] * len(work.answers)
        try:
            async for _ in work.steps():
                for place, answer in enumerate(work.answers):
                    done, began = answer.generation.done, answer.given == 0
                    tokens = answer.news()
                    if closed[place] or not (tokens or done):
                        continue
                    closed[place] = done
                    text, finish = texts[place].more(answer.ids[: answer.given]), None
                    if done:
                        text = text + self._completions.written(answer)[texts[place].shown :]
                        finish = answer.generation.finish
                    choice = self._choice(place, answer, text, tokens, finish)
                    if began and work.asked.return_token_ids:
                        choice["prompt_token_ids"] = answer.prompt.ids.tolist()
                    yield event({**self._head(work), "choices": [choice]})
        except ApiError as error:
            yield event(error.body)
            return
        if request.stream_options is not None and request.stream_options.include_usage:
            yield event({**self._head(work), "choices": [], "usage": usage(work)})
        yield b"data: [DONE]\n\n"

    def _choice(
        self, place: int, answer: Answer, text: str, tokens: Sequence[Drawn], finish: str | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": place, "text": text, "finish_reason": finish, "logprobs": None}
        if answer.asked.top_logprobs is not None:
            choice["logprobs"] = self._logprobs(tokens)
        if answer.asked.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice

    def _head(self, work: Work) -> dict[str, Any]:
        return {
            "id": f"cmpl-{work.key}",
            "object": "text_completion",
            "created": work.created,
            "model": self._completions.model,
            "policy": self._completions.model,
            "policy_version": work.version,
        }

    def _logprobs(self, tokens: Sequence[Drawn]) -> dict[str, Any]:
        text = self._completions.token_text
        return {
            "tokens": [text(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{text(id): logprob for id, logprob in token.top} for token in tokens],
        }
