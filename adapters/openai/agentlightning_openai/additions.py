"""What is asked of an endpoint beside what the agent asked, so that a call can be learned from: tokens, and a stream's
usage. For answers as plain JSON, which no client has parsed, what came of it is taken out again here; for the client's
own objects `agentlightning_openai.response.hide_additions` does the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlightning_openai.request import Operation

EXTRAS = ("prompt_token_ids", "token_ids", "policy_version", "logprobs_mode")
"""What an engine adds where it is asked for `return_token_ids`, its policy's version, what its logprobs are of."""


def with_tokens(body: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
    """A request that asks for the ids of its tokens and their log-probabilities."""
    logprobs = 0 if operation == "text_completion" else True
    return {**body, "logprobs": logprobs, "return_token_ids": True}


def with_usage(body: dict[str, Any], operation: Operation) -> dict[str, Any]:
    """A request that asks for its usage also where it is a stream; a responses stream always says it."""
    if operation == "responses" or not body.get("stream"):
        return body
    return {**body, "stream_options": {**(body.get("stream_options") or {}), "include_usage": True}}


def asks_for_logprobs(body: Mapping[str, Any]) -> bool:
    """Whether a request asks for log-probabilities. 0 does: those of the sampled tokens alone."""
    return body.get("logprobs") is not None and body.get("logprobs") is not False


class Additions:
    """What stands in the answers to ``sent`` that ``original`` does not ask for."""

    def __init__(self, original: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
        self._ids = bool(sent.get("return_token_ids")) and not original.get("return_token_ids")
        self._logprobs = asks_for_logprobs(sent) and not asks_for_logprobs(original)
        self._usage = _wants_usage(sent) and not _wants_usage(original)

    @property
    def none(self) -> bool:
        """Whether answers may go to the agent as they are."""
        return not (self._ids or self._logprobs or self._usage)

    @property
    def are_tokens(self) -> bool:
        """Whether the agent is to get neither ids nor log-probabilities."""
        return self._ids and self._logprobs

    def take_out(self, data: dict[str, Any]) -> bool:
        """Takes them out of a whole answer, or of a chunk or event of a stream; whether there was anything."""
        response = data.get("response")
        found = [self._take_out_of(part) for part in (response, data) if isinstance(part, dict)]
        if self._usage and data.get("usage", data) is None:
            del data["usage"]
            return True
        return any(found)

    def is_only_usage(self, chunk: Mapping[str, Any]) -> bool:
        """Whether a chunk of a stream is there for the usage alone, and that was not asked for."""
        return self._usage and not chunk.get("choices") and chunk.get("usage") is not None

    def _take_out_of(self, data: dict[str, Any]) -> bool:
        found = False
        if self._ids:
            for name in EXTRAS:
                found |= data.pop(name, self) is not self
        if self._logprobs and "logprobs" in data:  # a list in the responses API: of its answer, of an event's text
            found = True
            if "type" in data:
                data["logprobs"] = []
            else:
                del data["logprobs"]
        choices = data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                found |= self._take_out_of_choice(choice)
        return found

    def _take_out_of_choice(self, choice: dict[str, Any]) -> bool:
        found = False
        if self._ids:
            for name in ("token_ids", "prompt_token_ids"):
                found |= choice.pop(name, self) is not self
        if self._logprobs and choice.get("logprobs") is not None:
            found, choice["logprobs"] = True, None
        return found


def _wants_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))
