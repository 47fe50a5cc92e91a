"""A model served for an agent that nobody changes: any model name, the run's prompts, and no request that breaks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import Prompt
from agentlightning_policy.serving import TorchServer

PROMPTS = [Prompt(name="all", template="Be brief.", replaces="Be long.")]


def test_it_is_the_registered_server() -> None:
    assert plugins().find("servers", "torch") is TorchServer


@pytest.fixture
async def client(tiny_model: Path) -> AsyncIterator[httpx.AsyncClient]:
    server = TorchServer({"path": str(tiny_model)}, {"max_tokens": 4}, prompts=PROMPTS, any_name=True)
    policy = await server.start()
    try:
        async with httpx.AsyncClient(base_url=policy.base_url, timeout=60) as client:
            yield client
    finally:
        await server.aclose()


async def prompt_tokens(client: httpx.AsyncClient, system: str) -> int:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "hi"}]
    answer = await client.post("/chat/completions", json={"model": "whatever", "messages": messages})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens"])


async def test_a_runs_prompt_takes_the_place_of_the_agents_own(client: httpx.AsyncClient) -> None:
    assert await prompt_tokens(client, "Be long.") == await prompt_tokens(client, "Be brief.")
    assert await prompt_tokens(client, "Be long. Really, as long as you can.") > await prompt_tokens(client, "Be long.")


async def test_instructions_of_a_responses_call_are_a_prompt_too(client: httpx.AsyncClient) -> None:
    asked = {"model": "gpt-5", "input": "hi", "instructions": "Be long."}
    assert (await client.post("/responses", json=asked)).json()["instructions"] == "Be brief."


async def test_a_wish_that_training_passes_over_is_passed_over(client: httpx.AsyncClient) -> None:
    """An agent that asks for JSON was trained; it is not refused once it is served."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "response_format": {"type": "json_object"}}
    assert (await client.post("/chat/completions", json=asked)).status_code == 200
    assert (await client.post("/chat/completions", json={**asked, "unconstrained": False})).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"messages": 5}',
        b'{"messages": [5]}',
        b'{"messages": "hi", "instructions": 3}',
        b"[" * 100_000,
        b'{"input": {"role": "system"}}',
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/completions"])
async def test_a_body_that_cannot_be_read_is_the_clients_fault(
    client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    assert (await client.post(path, content=body)).status_code == 400


async def test_a_name_is_asked_for_where_one_is_given(tiny_model: Path) -> None:
    server = TorchServer({"path": str(tiny_model)}, {"name": "mine"})
    policy = await server.start()
    try:
        async with httpx.AsyncClient(base_url=policy.base_url, timeout=60) as client:
            asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
            assert (await client.post("/chat/completions", json={"model": "mine", **asked})).status_code == 200
            assert (await client.post("/chat/completions", json={"model": "other", **asked})).status_code == 404
    finally:
        await server.aclose()
    await server.aclose()


@pytest.mark.parametrize(
    ("model", "engine", "message"),
    [
        ({"pth": "x"}, {}, "algorithm.model.pth: unknown key; did you mean path"),
        ({"path": "x"}, {"port": -1}, "algorithm.engine.port: expected int >= 0"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(
    model: dict[str, object], engine: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TorchServer(model, engine)
