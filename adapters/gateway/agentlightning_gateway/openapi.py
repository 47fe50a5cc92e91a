"""The OpenAPI description of what the gateway serves, from the types that its requests are read into."""

from __future__ import annotations

from typing import Any

import msgspec

from agentlightning_gateway.api_chat import ChatRequest
from agentlightning_gateway.api_responses import ResponsesRequest
from agentlightning_gateway.api_text import TextRequest
from agentlightning_gateway.protocol import ApiErrorBody

REQUESTS = {"/chat/completions": ChatRequest, "/responses": ResponsesRequest, "/completions": TextRequest}


def describe(model: str) -> dict[str, Any]:
    """The description of a gateway that serves ``model``."""
    schemas, components = msgspec.json.schema_components(
        [*REQUESTS.values(), ApiErrorBody], ref_template="#/components/schemas/{name}"
    )
    *bodies, error = schemas
    for name in (type.__name__ for type in REQUESTS.values()):
        components[name]["properties"]["model"] = {"const": model}
        components[name]["additionalProperties"] = False
    refusal = {"description": "What was wrong, and in which field", "content": _json(error)}
    answers = {"200": {"description": "The answer"}, "400": refusal, "404": refusal, "413": refusal, "501": refusal}
    paths: dict[str, Any] = {
        f"/v1{path}": {"post": {"requestBody": {"required": True, "content": _json(body)}, "responses": answers}}
        for path, body in zip(REQUESTS, bodies, strict=True)
    }
    for path in ("/v1/models", "/health"):
        paths[path] = {"get": {"responses": {"200": {"description": "The answer"}}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentlightning-gateway", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
