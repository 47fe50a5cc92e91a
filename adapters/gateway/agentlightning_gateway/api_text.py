"""``POST /v1/completions``: text that goes on, without a chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec

from agentlightning.sampler import SampledToken
from agentlightning_gateway.api_chat import usage
from agentlightning_gateway.completions import Completions, Generation, RequestHandle, event
from agentlightning_gateway.protocol import (
    MAX_CHOICES,
    MAX_TOP_LOGPROBS,
    ApiError,
    GenerationRequest,
    SamplingFields,
    StreamOptions,
    sampling_options,
)
from agentlightning_gateway.requests import decode, stop_strings
from agentlightning_gateway.sessions import Prompt

DEFAULT_MAX_TOKENS = 16
"""The API's own, for requests that name none."""
MAX_ANSWERS = 1024
"""Prompts times choices of one request."""


class TextRequest(SamplingFields, kw_only=True):
    """The body of a request. Prompts are text or token ids."""

    prompt: str | list[str | int | list[int]]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream_options: StreamOptions | None = None
    best_of: int | None = None
    add_special_tokens: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    def generation_request(self) -> GenerationRequest:
        """Raises `ApiError` for what the engine does not do."""
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ApiError(400, "best_of is not supported", param="best_of")
        return GenerationRequest(
            **sampling_options(self),
            max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
            stops=stop_strings(self.stop),
            n=self.n or 1,
            top_logprobs=self.logprobs,
            tokens_as_ids=bool(self.return_tokens_as_token_ids),
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

    def read(self, data: bytes, rollout: str | None) -> tuple[TextRequest, GenerationRequest, list[Prompt]]:
        """The request and its prompts. Raises `ApiError`."""
        body = decode(data, TextRequest, self._completions.info.name)
        special = body.add_special_tokens is not False
        prompts = self._completions.text_prompts(body.prompts(), rollout, special=special)
        return body, body.generation_request(), prompts

    def whole(self, body: TextRequest, handle: RequestHandle) -> dict[str, Any]:
        """The response, once it is complete. Safe to call from any thread."""
        choices = []
        for index, generation in enumerate(handle.generations):
            finish = generation.finish
            choice = self._choice(index, generation, self._completions.text(generation), generation.tokens, finish)
            if handle.request.return_token_ids:
                choice["prompt_token_ids"] = generation.prompt.ids.tolist()
            choices.append(choice)
        return {**self._head(handle), "choices": choices, "usage": usage(handle)}

    async def chunks(self, body: TextRequest, handle: RequestHandle) -> AsyncIterator[bytes]:
        """The response as server-sent events. An error after the first chunk is the last event."""
        texts = [self._completions.detokenizer(generation) for generation in handle.generations]
        closed = [False] * len(handle.generations)
        try:
            async for _ in handle.steps():
                for index, generation in enumerate(handle.generations):
                    done, began = generation.done, generation.sent == 0
                    tokens = generation.new_tokens()
                    if closed[index] or not (tokens or done):
                        continue
                    closed[index] = done
                    text, finish = texts[index].push(generation.ids[: generation.sent]), None
                    if done:
                        text = text + self._completions.text(generation)[texts[index].shown :]
                        finish = generation.finish
                    choice = self._choice(index, generation, text, tokens, finish)
                    if began and handle.request.return_token_ids:
                        choice["prompt_token_ids"] = generation.prompt.ids.tolist()
                    yield event({**self._head(handle), "choices": [choice]})
        except ApiError as error:
            yield event(error.body)
            return
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event({**self._head(handle), "choices": [], "usage": usage(handle)})
        yield b"data: [DONE]\n\n"

    def _choice(
        self, index: int, generation: Generation, text: str, tokens: Sequence[SampledToken], finish: str | None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "text": text, "finish_reason": finish, "logprobs": None}
        if generation.request.top_logprobs is not None:
            choice["logprobs"] = self._logprobs(tokens, as_ids=generation.request.tokens_as_ids)
        if generation.request.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice

    def _head(self, handle: RequestHandle) -> dict[str, Any]:
        return {
            "id": f"cmpl-{handle.key}",
            "object": "text_completion",
            "created": handle.created,
            **self._completions.identity(handle),
        }

    def _logprobs(self, tokens: Sequence[SampledToken], *, as_ids: bool) -> dict[str, Any]:
        text = "token_id:{}".format if as_ids else self._completions.token_text
        return {
            "tokens": [text(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{text(id): logprob for id, logprob in token.top} for token in tokens],
        }
