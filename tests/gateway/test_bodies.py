"""Any JSON object that is sent as a request is answered, or refused by the name of what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anyio.from_thread
import httpx
import msgspec
import pytest
from conftest import make_tokenizer
from gateway.fake_sampler import FakeSampler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentlightning_gateway import Gateway
from agentlightning_gateway.api_chat import ChatRequest
from agentlightning_gateway.api_responses import ResponsesRequest
from agentlightning_gateway.api_text import TextRequest
from agentlightning_gateway.fields import CONSTRAINTS, NEUTRAL, PASSED_OVER
from agentlightning_gateway.openapi import describe

APIS: dict[str, tuple[type[msgspec.Struct], dict[str, Any]]] = {
    "chat/completions": (ChatRequest, {"messages": [{"role": "user", "content": "hi"}]}),
    "responses": (ResponsesRequest, {"input": "hi"}),
    "completions": (TextRequest, {"prompt": "hi"}),
}
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from([0, 1, 2, "auto", "none", "user", "tool", "assistant", "function", "text", "json_object", "hi"]),
)  # fmt: skip
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "name",
        "function",
        "arguments",
        "id",
        "tool_calls",
        "tool_call_id",
        "parameters",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[[str, dict[str, Any]], httpx.Response]]:
    """``served(path, body)`` → the response of a gateway before a fake sampler."""
    tokenizer = make_tokenizer()
    gateway = Gateway(FakeSampler(tokenizer, "yes"), tokenizer=tokenizer)
    with anyio.from_thread.start_blocking_portal() as portal, httpx.Client(timeout=60) as client:
        portal.call(gateway.start)
        yield lambda path, body: client.post(f"{gateway.base_url}/{path}", content=msgspec.json.encode(body))
        portal.call(gateway.stop)


def fields_of(path: str) -> list[str]:
    own = [field.encode_name for field in msgspec.structs.fields(APIS[path][0])]
    return sorted({*own, *PASSED_OVER, *NEUTRAL, *CONSTRAINTS} - {"model"})


@pytest.mark.parametrize("path", APIS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_object_is_answered_or_refused_by_a_field_s_name(data: st.DataObject, path: str, served: Any) -> None:
    names = st.sampled_from(fields_of(path)) | st.text(max_size=6)
    body = {"model": "fake", **APIS[path][1], **data.draw(st.dictionaries(names, VALUES, max_size=4))}
    response = served(path, body)
    if response.status_code != 200:
        error = response.json()["error"]
        assert (response.status_code, error["type"]) in [(400, "invalid_request_error"), (404, "invalid_request_error")]
        assert any(str(error["param"]).startswith(name) for name in body), error


def test_the_description_knows_every_request_s_fields() -> None:
    description = describe("fake")
    for path, (type, _) in APIS.items():
        content = description["paths"][f"/v1/{path}"]["post"]["requestBody"]["content"]
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        schema = description["components"]["schemas"][name]
        assert set(schema["properties"]) == {field.encode_name for field in msgspec.structs.fields(type)}
        assert schema["properties"]["model"] == {"const": "fake"}
