"""A whole answer of a completions API, read only as far as it must be: what of it goes on to the client stays the bytes
that it was, and of its log-probabilities, most of its size, the numbers alone are read."""

from __future__ import annotations

from typing import Any

import msgspec

_READ = ("id", "model", "usage", "prompt_token_ids", "policy_version", "logprobs_mode", "error")
_READ_OF_CHOICE = ("message", "text", "finish_reason", "token_ids", "prompt_token_ids", "error")


class _Token(msgspec.Struct, gc=False):
    logprob: Any


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None
    token_logprobs: list[Any] | None = None


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None)
_logprobs = msgspec.json.Decoder(_Logprobs | None)


def fields_in(body: bytes) -> dict[str, Any]:
    """The fields of an answer, and of its choices, each as the JSON that it is. Raises `msgspec.MsgspecError` where the
    body is no such answer."""
    fields: dict[str, Any] = _fields.decode(body)
    if "choices" in fields:
        fields["choices"] = _choices.decode(fields["choices"])
    return fields


def parsed_completion(fields: dict[str, Any]) -> dict[str, Any]:
    """What is read of an answer (`agentlightning_openai.response.read`). Raises `msgspec.MsgspecError`."""
    parsed = _parsed(fields, _READ)
    if fields.get("choices") is not None:
        parsed["choices"] = [_choice(choice) for choice in fields["choices"]]
    return parsed


def _choice(fields: dict[str, Any]) -> dict[str, Any]:
    parsed = _parsed(fields, _READ_OF_CHOICE)
    if "logprobs" in fields:
        logprobs = _logprobs.decode(fields["logprobs"])
        if logprobs is not None:
            parsed["logprobs"] = {"content": logprobs.content, "token_logprobs": logprobs.token_logprobs}
    return parsed


def _parsed(fields: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: msgspec.json.decode(fields[name]) for name in names if name in fields}
