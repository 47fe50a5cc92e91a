"""Model calls that the SDK makes without the ``openai`` client's requests (another provider's client, a web socket), as
generations of provenance ``text``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.records import Generation, Usage
from agentlightning_openai import responses_api


def call_name(data: Any) -> tuple[str, dict[str, Any]]:
    """The span's name and its ``gen_ai.*`` attributes, as far as they are known before the call."""
    model = getattr(data, "model", None)
    attributes = {semconv.OPERATION_NAME: "chat", **({semconv.REQUEST_MODEL: str(model)} if model else {})}
    return f"chat {model}" if model else "chat", attributes


def to_generation(data: Any, attributes: dict[str, Any]) -> Generation:
    """What was asked and answered; adds what the answer tells to ``attributes``. All of it is missing where the run
    has ``trace_include_sensitive_data=False``."""
    said = _of_response(data) if data.type == "response" else _of_generation(data)
    usage = data.usage or {}
    if "input_tokens" in usage:
        said.usage = Usage(input_tokens=usage["input_tokens"] or 0, output_tokens=usage.get("output_tokens") or 0)
        attributes[semconv.USAGE_INPUT_TOKENS] = said.usage.input_tokens
        attributes[semconv.USAGE_OUTPUT_TOKENS] = said.usage.output_tokens
    return said


def _of_response(data: Any) -> Generation:
    response = data.response
    given = data.input if isinstance(data.input, str) else list(map(_item, data.input or ()))
    instructions = getattr(response, "instructions", None)
    said = Generation(
        messages=responses_api.chat_messages(instructions if isinstance(instructions, str) else None, given)
    )
    if response is not None:
        said.model = response.model
        said.response = responses_api.assistant_message(map(_item, response.output))
        said.finish_reason = responses_api.finish_reason(response.status, None, said.response)
    return said


def _of_generation(data: Any) -> Generation:
    said = Generation(messages=list(map(_item, data.input or ())), model=str(data.model) if data.model else None)
    answers = list(map(_item, data.output or ()))
    if answers and "output" in answers[0]:  # what was streamed is kept as an answer of the responses API
        said.response = responses_api.assistant_message(map(_item, _items(answers[0]["output"])))
    elif answers:
        said.response = answers[0]
    return said


def _items(output: Any) -> Iterable[Any]:
    return output if isinstance(output, list) else ()


def _item(item: Any) -> dict[str, Any]:
    """An item or message as a mapping of its own."""
    return dict(item) if isinstance(item, Mapping) else item.model_dump(exclude_none=True)
