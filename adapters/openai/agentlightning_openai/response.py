"""What an answer says, read from the client's parsed objects; and what of it the agent asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning.records import Failure, Generation, Usage
from agentlightning_openai import responses_api
from agentlightning_openai.additions import EXTRAS, asks_for_logprobs
from agentlightning_openai.deltas import fields_of, plain
from agentlightning_openai.failures import type_and_fault
from agentlightning_openai.request import Operation


@dataclass(slots=True)
class Choice:
    """One message of an answer, with its tokens where the engine gave them."""

    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: list[Any] | None = None
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
    logprobs_mode: str | None = None
    """What the endpoint says that its log-probabilities are of (`agentlightning.sampler.LogprobsMode`)."""
    failure: Failure | None = None


def read(parsed: Any, operation: Operation) -> Answer:
    """The client's parsed object of an operation. Of embeddings only usage is kept."""
    if operation == "responses":
        return read_response(parsed)
    if operation == "embeddings":
        return Answer(model=getattr(parsed, "model", None), usage=usage_of(getattr(parsed, "usage", None)))
    return _read_completion(parsed)


def _read_completion(completion: Any) -> Answer:
    """A ``ChatCompletion``, or a ``Completion`` of the legacy API, which may answer several prompts."""
    fields = fields_of(completion)
    choices = _choices(fields)
    errors = [error for choice in choices if (error := fields_of(choice).get("error"))]
    failure = failure_in(fields.get("error")) or unreadable(completion) if not choices else None
    return Answer(
        choices=[_read_choice(choice) for choice in choices],
        id=fields.get("id"),
        model=fields.get("model"),
        usage=usage_of(fields.get("usage")),
        prompt_ids=fields.get("prompt_token_ids"),
        policy_version=fields.get("policy_version"),
        logprobs_mode=fields.get("logprobs_mode"),
        failure=failure_in(errors[0]) if errors else failure,
    )


def _read_choice(choice: Any) -> Choice:
    fields = fields_of(choice)
    message = fields.get("message")
    if "text" in fields:
        message = {"role": "assistant", "content": fields["text"] or ""}
    elif message is not None:
        message = _message(message)
    return Choice(
        message,
        finish_reason_of(fields),
        fields.get("token_ids"),
        logprobs_of(choice),
        fields.get("prompt_token_ids"),
    )


def _choices(fields: Mapping[str, Any]) -> list[Any]:
    choices = fields.get("choices")
    return choices if isinstance(choices, list) else []


def read_response(response: Any) -> Answer:
    """A ``Response`` of the responses API.

    Token ids, for which that API has no place, are read from the top level of the answer: ``prompt_token_ids``,
    ``token_ids`` and ``logprobs`` (a list of numbers, one a token).
    """
    fields = fields_of(response)
    if "output" not in fields:
        return Answer(failure=failure_in(fields.get("error")) or unreadable(response))
    message = responses_api.assistant_message(plain(item) for item in fields["output"] or ())
    reason = fields_of(fields.get("incomplete_details")).get("reason")
    reason = responses_api.finish_reason(fields.get("status"), reason, message)
    return Answer(
        choices=[Choice(message, reason, fields.get("token_ids"), logprobs_in(fields.get("logprobs")))],
        id=fields.get("id"),
        model=fields.get("model"),
        usage=usage_of(fields.get("usage")),
        prompt_ids=fields.get("prompt_token_ids"),
        policy_version=fields.get("policy_version"),
        logprobs_mode=fields.get("logprobs_mode"),
        failure=failure_in(fields.get("error")),
    )


def usage_of(usage: Any) -> Usage | None:
    """Tokens as either API counts them."""
    fields = fields_of(usage)
    if not fields:
        return None
    return Usage(
        input_tokens=_count(fields.get("prompt_tokens")) or _count(fields.get("input_tokens")),
        output_tokens=_count(fields.get("completion_tokens")) or _count(fields.get("output_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def write_choice(generation: Generation, answer: Answer, choice: Choice) -> None:
    """Writes an answer's choice into a generation: its tokens only where they are whole, and the endpoint says that the
    log-probabilities are those which a trainer computes again."""
    generation.response = choice.message
    generation.finish_reason = choice.finish_reason
    if answer.logprobs_mode != "tempered":
        return
    prompt_ids, response_ids = _ids(choice.prompt_ids or answer.prompt_ids), _ids(choice.token_ids)
    logprobs = _logprobs(choice.logprobs)
    if prompt_ids is None or response_ids is None or logprobs is None or len(response_ids) != len(logprobs):
        return
    generation.prompt_ids, generation.response_ids, generation.logprobs = prompt_ids, response_ids, logprobs
    generation.provenance = "exact"


def logprobs_of(choice: Any) -> list[float] | None:
    """The log-probability of each token of a choice, or of a chunk of one, of either API."""
    fields = fields_of(fields_of(choice).get("logprobs"))
    tokens = fields.get("content")
    return logprobs_in(tokens if tokens is not None else fields.get("token_logprobs"))


def logprobs_in(tokens: Any) -> list[Any] | None:
    """What stands for the log-probability of each token in a list of tokens, or of numbers alone."""
    if not isinstance(tokens, list):
        return None
    try:
        return [token.logprob for token in tokens]
    except AttributeError:
        return [token.get("logprob") if isinstance(token, dict) else token for token in tokens]


def hide_additions(parsed: Any, original: Mapping[str, Any]) -> None:
    """Takes out of a redirected call's answer (whole, or a chunk) what only we asked for.

    An agent that never asked for log-probabilities gets none: it may count on their absence, or carry them
    on in its state and its next request.
    """
    extra = parsed.model_extra
    logprobs = asks_for_logprobs(original)
    ids = not original.get("return_token_ids")
    if extra and ids:
        for name in (*EXTRAS, *(() if logprobs else ("logprobs",))):
            extra.pop(name, None)
    if not logprobs and hasattr(parsed, "delta") and hasattr(parsed, "logprobs"):
        parsed.logprobs = []
    for choice in _choices(fields_of(parsed)):
        if not logprobs and hasattr(choice, "logprobs"):
            choice.logprobs = None
        if ids and getattr(choice, "model_extra", None):
            choice.model_extra.pop("token_ids", None)
            choice.model_extra.pop("prompt_token_ids", None)


def _message(message: Any) -> dict[str, Any]:
    """A message without the fields that say nothing; ``content`` is always there.

    The client's own ``to_dict`` takes four times as long, which counts on every call.
    """
    fields: dict[str, Any] = {"role": "assistant", "content": None}
    for name, value in fields_of(message).items():
        if value is not None and value != []:
            fields[name] = [plain(part) for part in value] if isinstance(value, list) else plain(value)
    return fields


def finish_reason_of(fields: Mapping[str, Any]) -> str | None:
    """Why a choice ended, in the endpoint's word, whatever that is."""
    reason = fields.get("finish_reason")
    return reason if reason is None or isinstance(reason, str) else str(reason)


def _ids(values: Any) -> np.ndarray | None:
    """Token ids as an array; None where they are none, which numpy would take or round in silence."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        return None
    try:
        return np.array(values, np.int32)
    except OverflowError:
        return None


def _logprobs(values: Any) -> np.ndarray | None:
    """Log-probabilities as an array; None where one is no finite number."""
    if not isinstance(values, list) or not set(map(type, values)) <= {float, int}:
        return None
    try:
        return np.array(values, np.float32) if math.isfinite(sum(values)) else None
    except OverflowError:
        return None


def unreadable(parsed: Any) -> Failure:
    """The failure of an endpoint that answered with something else than an answer of the OpenAI API."""
    message = f"the endpoint answered with no answer of the OpenAI API, but {str(parsed)[:200]!r}"
    return Failure(type="invalid_response", message=message, fault="infrastructure")


def failure_in(error: Any) -> Failure | None:
    """The failure of an error in the body of an answer; None where it is none."""
    fields = fields_of(error)
    if not fields:
        return None
    code, message = fields.get("code"), fields.get("message")
    type, fault = type_and_fault(code, f"{fields.get('type')} {message}")
    return Failure(type=type, message=f"{code}: {message}", fault=fault)
