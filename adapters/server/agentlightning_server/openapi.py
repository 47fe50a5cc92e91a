"""The OpenAPI description of the server, from the types that its requests are read into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from agentlightning.failures import FailureReport
from agentlightning_openai.request import Operation, path_of
from agentlightning_server import wire
from agentlightning_server.gateway.routes import OPERATIONS, PREFIXES, Pause
from agentlightning_server.methods import METHODS, Feedback
from agentlightning_server.monitor.routes import FailuresQuery
from agentlightning_server.training.records import Submission, Training, TrainingAnswer, Trainings

JSON = "application/json"
OBJECT: dict[str, Any] = {"type": "object"}
ASKED: dict[Operation, str] = {"chat": "messages", "responses": "input", "text_completion": "prompt"}
"""The field of each operation of the OpenAI API that holds what the model is asked."""


@dataclass(frozen=True)
class Described:
    """One operation: what it reads and answers, each a type or a schema; ``query`` is the type of its parameters."""

    method: str
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    query: Any = None
    content_type: str = JSON


def _asked(operation: Operation) -> dict[str, Any]:
    field = ASKED[operation]
    return {"type": "object", "properties": {"model": {"type": "string"}, field: {}}, "required": ["model", field]}


TABLE = (
    Described("get", "/health", "Whether the server lives", answer=OBJECT),
    Described("get", "/openapi.json", "This description", answer=OBJECT),
    Described("get", "/metrics", "What Prometheus reads"),
    Described("get", "/v1/failures", "What has failed in a run", answer=FailureReport, query=FailuresQuery),
    Described("post", "/v1/session", "The session lives", answer=wire.SessionAnswer),
    Described("delete", "/v1/session", "The session is over"),
    Described("post", "/v1/feedback", "What a user thinks of a rollout", body=Feedback, answer=OBJECT),
    Described("post", "/v1/training", "Submits a training", body=Submission, answer=Training),
    Described("get", "/v1/training", "All trainings", answer=Trainings),
    Described("get", "/v1/training/{id}", "A training, and a part of its log", answer=TrainingAnswer),
    Described("delete", "/v1/training/{id}", "Removes a training that has ended", answer=Training),
    Described("post", "/v1/training/{id}/stop", "Stops a training", body=OBJECT, answer=Training),
    Described("post", "/v1/training/{id}/resume", "Has a training go on", body=OBJECT, answer=Training),
    Described("get", "/v1/gateway", "How the gateway stands", answer=OBJECT),
    Described("post", "/v1/gateway/pause", "No new model call begins", body=Pause, answer=OBJECT),
    Described("post", "/v1/gateway/resume", "Model calls go on", body=OBJECT, answer=OBJECT),
    *(
        Described(
            "post",
            f"/v1/store/{name}",
            f"The store's method `{name}`: its arguments by name, as MessagePack",
            body={"type": "string", "format": "binary"},
            content_type=wire.CONTENT_TYPE,
        )
        for name in METHODS
    ),
    *(
        Described("post", f"{prefix}{path_of(operation)}", "A model call", body=_asked(operation), answer=OBJECT)
        for prefix in PREFIXES
        for operation in OPERATIONS
    ),
    *(Described("get", f"{prefix}/models", "The models that answer", answer=OBJECT) for prefix in PREFIXES),
)
REFUSALS = {
    "400": "The body, a parameter or a header is malformed",
    "401": "There is no key, or a wrong one, or one that has expired",
    "403": "The key is for something else, or only reads",
    "404": "There is no such thing",
    "408": "The body did not come in time",
    "409": "Another process holds it, or it does not stand so that this can be done",
    "413": "The body is too large",
    "415": "The body is of another content type",
    "422": "It cannot be done as it was asked",
    "502": "An upstream gave no answer that can be read",
    "503": "Not now: ask again",
}


def describe() -> dict[str, Any]:
    """The description of every route."""
    types = {it for one in TABLE for it in (one.body, one.answer, one.query) if isinstance(it, type)}
    named = sorted({*types, wire.Problem}, key=lambda type: type.__name__)
    schemas, components = msgspec.json.schema_components(named, ref_template="#/components/schemas/{name}")
    of = dict(zip(named, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in TABLE:
        paths.setdefault(one.path.replace(":int}", "}"), {})[one.method] = _operation(one, of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentlightning-server", "version": "1"},
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(one: Described, of: dict[type, Any], components: dict[str, Any]) -> dict[str, Any]:
    problem = {JSON: {"schema": of[wire.Problem]}}
    done: dict[str, Any] = {"description": "Done"}
    if one.answer is not None:
        done["content"] = {JSON: {"schema": _schema(one.answer, of)}}
    operation: dict[str, Any] = {
        "summary": one.summary,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind else "string"}}
                for name, kind in re.findall(r"{(\w+)(:int)?}", one.path)
            ),
            *_query(one, components),
        ],
        "responses": {
            "2XX": done,
            **{status: {"description": what, "content": problem} for status, what in REFUSALS.items()},
        },
    }
    if one.body is not None:
        operation["requestBody"] = {"required": True, "content": {one.content_type: {"schema": _schema(one.body, of)}}}
    return operation


def _query(one: Described, components: dict[str, Any]) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    fields: dict[str, Any] = components[one.query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _schema(described: Any, of: dict[type, Any]) -> dict[str, Any]:
    found: dict[str, Any] = of[described] if isinstance(described, type) else described
    return found
