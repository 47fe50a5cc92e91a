"""What a request says: which operation it is, its body, its parameters by their GenAI names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from agentlightning import semconv
from agentlightning.records import Generation, decode, encode
from agentlightning_openai import responses_api

Operation = Literal["chat", "responses", "text_completion", "embeddings"]

_PATHS: dict[str, Operation] = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}

_PARAMETERS = (
    ("model", semconv.REQUEST_MODEL),
    ("temperature", semconv.REQUEST_TEMPERATURE),
    ("top_p", semconv.REQUEST_TOP_P),
    ("max_tokens", semconv.REQUEST_MAX_TOKENS),
    ("max_completion_tokens", semconv.REQUEST_MAX_TOKENS),
    ("max_output_tokens", semconv.REQUEST_MAX_TOKENS),
    ("seed", semconv.REQUEST_SEED),
    ("stream", semconv.REQUEST_STREAM),
)


def operation_of(options: Any) -> Operation | None:
    """Which model operation a request is; None for everything else that the client can ask for."""
    if options.method.lower() != "post":
        return None
    path = options.url.partition("?")[0].rstrip("/")
    if not path.startswith("/"):
        path = f"/{path}"
    return _PATHS.get(path) or next((known for ending, known in _PATHS.items() if path.endswith(ending)), None)


def path_of(operation: Operation) -> str:
    """Where an operation lives under a base URL."""
    return next(path for path, known in _PATHS.items() if known == operation)


def body_of(options: Any) -> dict[str, Any] | None:
    """The JSON body as the client will send it, ``extra_body`` included; None when it is no JSON object.

    Its values are the agent's own objects: they are not to be changed.
    """
    body, extra = options.json_data, options.extra_json
    if extra is None:
        return body if isinstance(body, dict) else None
    if body is not None and not isinstance(body, Mapping):
        return None
    return {name: value for name, value in {**(body or {}), **extra}.items() if type(value).__name__ != "Omit"}


def attributes_of(operation: Operation, body: Mapping[str, Any]) -> dict[str, Any]:
    """The request's parameters as span attributes."""
    attributes: dict[str, Any] = {
        semconv.OPERATION_NAME: "chat" if operation == "responses" else operation,
        semconv.PROVIDER_NAME: "openai",
    }
    for name, attribute in _PARAMETERS:
        value = body.get(name)
        if value is not None:
            attributes[attribute] = value
    if _wants_json(operation, body):
        attributes[semconv.OUTPUT_TYPE] = "json"
    return attributes


def _wants_json(operation: Operation, body: Mapping[str, Any]) -> bool:
    wanted = body.get("text" if operation == "responses" else "response_format")
    if operation == "responses" and isinstance(wanted, Mapping):
        wanted = wanted.get("format")
    return isinstance(wanted, Mapping) and wanted.get("type") in ("json_object", "json_schema")


def endpoint_of(client: Any, url: str) -> dict[str, Any]:
    """Where a request goes, as span attributes: the host and port of its own address, else of the client's."""
    parts = urlsplit(url if "://" in url else str(client.base_url))
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return {semconv.SERVER_ADDRESS: parts.hostname, semconv.SERVER_PORT: port}


def generation_of(operation: Operation, body: Mapping[str, Any]) -> Generation:
    """The request's half of a `Generation`, in the shape of the chat API, as a copy of its own: an agent may
    go on changing its list of messages. The prompts of a text completion are a user's message each."""
    tools: list[dict[str, Any]]
    if operation == "text_completion":
        prompt = _snapshot(body.get("prompt"))
        prompts = prompt if isinstance(prompt, list) and not all(isinstance(each, int) for each in prompt) else [prompt]
        messages, tools = [{"role": "user", "content": each} for each in prompts], []
    elif operation == "chat":
        taken = _snapshot((body.get("messages"), body.get("tools")))
        messages, tools = taken[0] or [], taken[1] or []
    else:
        instructions, items, tools = _snapshot((body.get("instructions"), body.get("input"), body.get("tools")))
        messages, tools = responses_api.chat_messages(instructions, items), responses_api.chat_tools(tools)
    temperature = body.get("temperature")
    return Generation(
        messages=_objects(messages),
        tools=_objects(tools),
        model=body.get("model"),
        temperature=1.0 if temperature is None else float(temperature),
    )


def _snapshot(value: Any) -> Any:
    try:
        return _decoder.decode(_encoder.encode(value))
    except Exception:  # noqa: BLE001 - an integer beyond 64 bits, half a surrogate pair, thousands of levels …
        return decode(encode(value), Any)


def _objects(items: Any) -> list[dict[str, Any]]:
    """The objects in a list, their keys as JSON has them. What else an endpoint is sent, it will refuse."""
    if not isinstance(items, list):
        return []
    return [{str(key): value for key, value in item.items()} for item in items if isinstance(item, dict)]


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", exclude_unset=True, by_alias=True)
    return dict(value) if isinstance(value, Mapping) else repr(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder()
