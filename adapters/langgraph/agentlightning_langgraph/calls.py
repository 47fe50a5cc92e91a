"""Model calls that LangChain makes without the ``openai`` client, as generations of provenance ``text``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentlightning import semconv
from agentlightning.adapterkit.attributes import without_none
from agentlightning.records import Generation, Usage
from agentlightning_langgraph.serialize import plain_message, plain_messages


@dataclass(slots=True)
class Request:
    """What a model was asked: messages or one text prompt, its parameters, LangChain's metadata of the run."""

    prompt: Sequence[BaseMessage] | str
    parameters: dict[str, Any]
    metadata: dict[str, Any]


def call_attributes(request: Request) -> tuple[str, dict[str, Any]]:
    """The span's name and its ``gen_ai.*`` attributes, as far as they are known before the call."""
    parameters, metadata = request.parameters, request.metadata
    operation = "text_completion" if isinstance(request.prompt, str) else "chat"
    model = metadata.get("ls_model_name") or parameters.get("model") or parameters.get("model_name")
    known = {
        semconv.OPERATION_NAME: operation,
        semconv.PROVIDER_NAME: metadata.get("ls_provider"),
        semconv.REQUEST_MODEL: model,
        semconv.REQUEST_TEMPERATURE: metadata.get("ls_temperature"),
        semconv.REQUEST_MAX_TOKENS: metadata.get("ls_max_tokens"),
    }
    name = f"{operation} {model}" if model else operation
    return name, without_none(known)


def to_generation(request: Request, response: LLMResult | None, attributes: dict[str, Any]) -> Generation:
    """What was asked and answered; adds what the answer tells to ``attributes``."""
    generation = Generation(
        messages=[{"role": "user", "content": request.prompt}]
        if isinstance(request.prompt, str)
        else plain_messages(request.prompt),
        tools=[
            convert_to_openai_tool(tool) for tool in request.parameters.get("tools") or () if isinstance(tool, dict)
        ],
        model=attributes.get(semconv.REQUEST_MODEL),
        temperature=attributes.get(semconv.REQUEST_TEMPERATURE, 1.0),
    )
    candidates = response.generations[0] if response is not None and response.generations else []
    if not candidates:
        return generation
    answer = candidates[0]
    details = answer.generation_info or {}
    if isinstance(answer, ChatGeneration):
        generation.response = plain_message(answer.message)
        details = {**details, **answer.message.response_metadata}
        generation.usage = _usage(answer.message)
    else:
        generation.response = {"role": "assistant", "content": answer.text}
    generation.model = details.get("model_name") or details.get("model") or generation.model
    generation.finish_reason = details.get("finish_reason") or details.get("stop_reason") or details.get("done_reason")
    known = {
        semconv.RESPONSE_MODEL: generation.model,
        semconv.RESPONSE_FINISH_REASONS: [generation.finish_reason] if generation.finish_reason else None,
        semconv.USAGE_INPUT_TOKENS: generation.usage.input_tokens if generation.usage else None,
        semconv.USAGE_OUTPUT_TOKENS: generation.usage.output_tokens if generation.usage else None,
    }
    attributes.update(without_none(known))
    return generation


def _usage(message: BaseMessage) -> Usage | None:
    counted = message.usage_metadata if isinstance(message, AIMessage) else None
    if counted is None:
        return None
    return Usage(input_tokens=counted["input_tokens"], output_tokens=counted["output_tokens"])
