"""What an answer says, read from the client's parsed objects; and what of it the agent asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning.records import Failure, Generation, Usage
from agentlightning_openai import responses_api
from agentlightning_openai.request import Operation

# What an engine adds where it is asked for `return_token_ids`, and its policy's version.
_EXTRAS = ("prompt_token_ids", "token_ids", "policy_version")


@dataclass(slots=True)
class Choice:
    """One message of an answer, with its tokens where the engine gave them."""

    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
    prompt_ids: list[int] | None = None
    """Where the choices of an answer have prompts of their own."""


@dataclass(slots=True)
class Answer:
    """A whole answer, whatever API and form it came in."""

    choices: list[Choice] = field(default_factory=list)
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    prompt_ids: list[int] | None = None
    policy_version: int | None = None
    failure: Failure | None = None


def read(parsed: Any, operation: Operation) -> Answer:
    """The client's parsed object of an operation. Of embeddings only usage is kept."""
    if operation == "chat":
        return read_completion(parsed)
    if operation == "responses":
        return read_response(parsed)
    if operation == "text_completion":
        return read_text(parsed)
    return Answer(model=getattr(parsed, "model", None), usage=usage_of(getattr(parsed, "usage", None)))


def read_completion(completion: Any) -> Answer:
    """A ``ChatCompletion``."""
    extra = completion.model_extra or {}
    choices = getattr(completion, "choices", None)
    if not choices:
        return Answer(failure=unreadable(completion))
    return Answer(
        choices=[_read_choice(choice) for choice in choices],
        id=getattr(completion, "id", None),
        model=getattr(completion, "model", None),
        usage=usage_of(getattr(completion, "usage", None)),
        prompt_ids=extra.get("prompt_token_ids"),
        policy_version=extra.get("policy_version"),
    )


def read_text(completion: Any) -> Answer:
    """A ``Completion`` of the legacy API, which may answer several prompts."""
    choices = getattr(completion, "choices", None)
    if not choices:
        return Answer(failure=unreadable(completion))
    return Answer(
        choices=[text_choice(choice) for choice in choices],
        id=getattr(completion, "id", None),
        model=getattr(completion, "model", None),
        usage=usage_of(getattr(completion, "usage", None)),
        policy_version=(completion.model_extra or {}).get("policy_version"),
    )


def text_choice(choice: Any) -> Choice:
    """A choice of a ``Completion``, or of a chunk of one."""
    extra = choice.model_extra or {}
    message = {"role": "assistant", "content": choice.text}
    logprobs = getattr(choice.logprobs, "token_logprobs", None)
    return Choice(message, choice.finish_reason, extra.get("token_ids"), logprobs, extra.get("prompt_token_ids"))


def read_response(response: Any) -> Answer:
    """A ``Response`` of the responses API.

    Token ids, for which that API has no place, are read from the top level of the answer: ``prompt_token_ids``,
    ``token_ids`` and ``logprobs`` (a list of numbers, one a token).
    """
    extra = response.model_extra or {}
    if not hasattr(response, "output"):
        return Answer(failure=unreadable(response))
    message = responses_api.assistant_message(item.to_dict() for item in response.output or ())
    details = getattr(response, "incomplete_details", None)
    reason = responses_api.finish_reason(response.status, getattr(details, "reason", None), message)
    error = getattr(response, "error", None)
    return Answer(
        choices=[Choice(message, reason, extra.get("token_ids"), extra.get("logprobs"))],
        id=response.id,
        model=response.model,
        usage=usage_of(getattr(response, "usage", None)),
        prompt_ids=extra.get("prompt_token_ids"),
        policy_version=extra.get("policy_version"),
        failure=_failed(error) if error is not None else None,
    )


def usage_of(usage: Any) -> Usage | None:
    """Tokens as either API counts them."""
    if usage is None:
        return None
    names = usage.__dict__
    return Usage(
        input_tokens=names.get("prompt_tokens") or names.get("input_tokens") or 0,
        output_tokens=names.get("completion_tokens") or names.get("output_tokens") or 0,
    )


def keep(generation: Generation, answer: Answer, choice: Choice) -> None:
    """Writes an answer's choice into a generation: its tokens only where they are whole and exact."""
    generation.response = choice.message
    generation.finish_reason = choice.finish_reason
    prompt_ids = _array(choice.prompt_ids or answer.prompt_ids, np.int32)
    response_ids, logprobs = _array(choice.token_ids, np.int32), _array(choice.logprobs, np.float32)
    if prompt_ids is None or response_ids is None or logprobs is None or len(response_ids) != len(logprobs):
        return
    generation.prompt_ids, generation.response_ids, generation.logprobs = prompt_ids, response_ids, logprobs
    generation.provenance = "exact"


def logprobs_of(choice: Any) -> list[float] | None:
    """The log-probability of each token of a choice, or of a chunk of one."""
    logprobs = getattr(choice, "logprobs", None)
    tokens = getattr(logprobs, "content", None)
    return None if tokens is None else [token.logprob for token in tokens]


def strip(parsed: Any, asked: Mapping[str, Any]) -> None:
    """Takes out of a redirected call's answer (whole, or a chunk) what only we asked for.

    An agent that never asked for log-probabilities gets none: it may count on their absence, or carry them
    on in its state and its next request.
    """
    extra = parsed.model_extra
    logprobs = asked.get("logprobs") not in (None, False)
    ids = not asked.get("return_token_ids")
    if extra and ids:
        for name in (*_EXTRAS, *(() if logprobs else ("logprobs",))):
            extra.pop(name, None)
    for choice in getattr(parsed, "choices", None) or ():
        if not logprobs:
            choice.logprobs = None
        if ids and choice.model_extra:
            choice.model_extra.pop("token_ids", None)
            choice.model_extra.pop("prompt_token_ids", None)


def _read_choice(choice: Any) -> Choice:
    extra = choice.model_extra or {}
    return Choice(_message(choice.message), choice.finish_reason, extra.get("token_ids"), logprobs_of(choice))


def _message(message: Any) -> dict[str, Any]:
    """A message without the fields that say nothing; ``content`` is always there.

    The client's own ``to_dict`` takes four times as long, which counts on every call.
    """
    said: dict[str, Any] = {"role": message.role, "content": None}
    for fields in (message.__dict__, message.model_extra or {}):
        for name, value in fields.items():
            if value is None or value == []:
                continue
            if isinstance(value, list):
                value = [part.to_dict() if hasattr(part, "to_dict") else part for part in value]
            said[name] = value.to_dict() if hasattr(value, "to_dict") else value
    return said


def _array(values: Iterable[Any] | None, dtype: Any) -> np.ndarray | None:
    if values is None:
        return None
    try:
        return np.array(values, dtype)
    except (TypeError, ValueError, OverflowError):
        return None


def unreadable(parsed: Any) -> Failure:
    """The failure of an endpoint that answered with something else than an answer of the OpenAI API."""
    message = f"the endpoint answered with no answer of the OpenAI API, but {str(parsed)[:200]!r}"
    return Failure(type="invalid_response", message=message, fault="infrastructure")


def _failed(error: Any) -> Failure:
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    return Failure(type="engine_unavailable", message=f"{code}: {message}", fault="infrastructure")
