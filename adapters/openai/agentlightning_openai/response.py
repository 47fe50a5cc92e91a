"""What an answer says, read from the client's parsed objects; and what of it the agent asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning.records import Failure, Generation, Usage
from agentlightning_openai import responses_api
from agentlightning_openai.deltas import fields_of, plain
from agentlightning_openai.failures import type_and_fault
from agentlightning_openai.request import Operation

# What an engine adds where it is asked for `return_token_ids`, and its policy's version.
_EXTRAS = ("prompt_token_ids", "token_ids", "policy_version")


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
    fields = fields_of(completion)
    answer = _answer([_read_choice(choice) for choice in _choices(fields)], completion)
    answer.prompt_ids = fields.get("prompt_token_ids")
    broken = next((error for choice in _choices(fields) if (error := fields_of(choice).get("error"))), None)
    if broken is not None and answer.failure is None:
        answer.failure = failure_in(broken)
    return answer


def read_text(completion: Any) -> Answer:
    """A ``Completion`` of the legacy API, which may answer several prompts."""
    return _answer([text_choice(choice) for choice in _choices(fields_of(completion))], completion)


def text_choice(choice: Any) -> Choice:
    """A choice of a ``Completion``, or of a chunk of one."""
    fields = fields_of(choice)
    message = {"role": "assistant", "content": fields.get("text") or ""}
    logprobs = logprobs_in(fields_of(fields.get("logprobs")).get("token_logprobs"))
    reason = finish_reason_of(fields)
    return Choice(message, reason, fields.get("token_ids"), logprobs, fields.get("prompt_token_ids"))


def _answer(choices: list[Choice], completion: Any) -> Answer:
    fields = fields_of(completion)
    return Answer(
        choices=choices,
        id=fields.get("id"),
        model=fields.get("model"),
        usage=usage_of(fields.get("usage")),
        policy_version=fields.get("policy_version"),
        failure=None if choices else failure_in(fields.get("error")) or unreadable(completion),
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


def keep(generation: Generation, answer: Answer, choice: Choice) -> None:
    """Writes an answer's choice into a generation: its tokens only where they are whole and exact."""
    generation.response = choice.message
    generation.finish_reason = choice.finish_reason
    prompt_ids, response_ids = _ids(choice.prompt_ids or answer.prompt_ids), _ids(choice.token_ids)
    logprobs = _logprobs(choice.logprobs)
    if prompt_ids is None or response_ids is None or logprobs is None or len(response_ids) != len(logprobs):
        return
    generation.prompt_ids, generation.response_ids, generation.logprobs = prompt_ids, response_ids, logprobs
    generation.provenance = "exact"


def logprobs_of(choice: Any) -> list[float] | None:
    """The log-probability of each token of a choice, or of a chunk of one."""
    logprobs = getattr(choice, "logprobs", None)
    return None if logprobs is None else logprobs_in(fields_of(logprobs).get("content"))


def logprobs_in(tokens: Any) -> list[Any] | None:
    """What stands for the log-probability of each token in a list of tokens, or of numbers alone."""
    if not isinstance(tokens, list):
        return None
    try:
        return [token.logprob for token in tokens]
    except AttributeError:
        return [token.get("logprob") if isinstance(token, dict) else token for token in tokens]


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
    if not logprobs and hasattr(parsed, "delta") and hasattr(parsed, "logprobs"):
        parsed.logprobs = []
    for choice in _choices(fields_of(parsed)):
        if not logprobs and hasattr(choice, "logprobs"):
            choice.logprobs = None
        if ids and getattr(choice, "model_extra", None):
            choice.model_extra.pop("token_ids", None)
            choice.model_extra.pop("prompt_token_ids", None)


def _read_choice(choice: Any) -> Choice:
    fields = fields_of(choice)
    given = fields.get("message")
    message = _message(given) if given is not None else None
    return Choice(message, finish_reason_of(fields), fields.get("token_ids"), logprobs_of(choice))


def _message(message: Any) -> dict[str, Any]:
    """A message without the fields that say nothing; ``content`` is always there.

    The client's own ``to_dict`` takes four times as long, which counts on every call.
    """
    said: dict[str, Any] = {"role": "assistant", "content": None}
    for name, value in fields_of(message).items():
        if value is not None and value != []:
            said[name] = [plain(part) for part in value] if isinstance(value, list) else plain(value)
    return said


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
