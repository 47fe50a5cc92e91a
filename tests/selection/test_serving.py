"""The model that a run chose answers an agent that nobody changes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import openai
import pytest
from stub_answers import error, text
from stub_server import StubServer

from agentlightning.errors import PolicyError
from agentlightning.plugins import plugins
from agentlightning.records import Prompt
from agentlightning.serving import Servable, ServedModel
from agentlightning_selection.serving import ForwardingServer


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


def chosen(stub: StubServer, *prompts: Prompt, **model: str) -> Servable:
    where = {"model": "small", "base_url": stub.base_url, **model}
    return Servable(server="forwarding", model=where, prompts=list(prompts))


def asked(served: ServedModel, model: str = "gpt-4o") -> openai.types.chat.ChatCompletion:
    messages = [{"role": "system", "content": "The agent's own."}, {"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=served.base_url, api_key="of the agent", max_retries=0) as client:
        return client.chat.completions.create(model=model, messages=messages)


def test_it_is_the_registered_server() -> None:
    assert plugins().find("servers", "forwarding") is ForwardingServer


def test_a_request_goes_to_the_chosen_model_with_the_runs_prompt(stub: StubServer) -> None:
    stub.reply(text("Good day."))
    with ServedModel(chosen(stub, Prompt(name="p", template="The run's."))) as served:
        assert asked(served).choices[0].message.content == "Good day."
    (request,) = stub.requests
    assert request.json["model"] == "small"
    assert request.json["messages"][0] == {"role": "system", "content": "The run's."}


def test_a_stream_is_passed_on(stub: StubServer) -> None:
    stub.reply(text("One two three."))
    with ServedModel(chosen(stub)) as served, openai.OpenAI(base_url=served.base_url, api_key="any") as client:
        messages = [{"role": "user", "content": "hi"}]
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "One two three."


def test_a_client_that_leaves_a_stream_harms_nobody(stub: StubServer, capfd: pytest.CaptureFixture[str]) -> None:
    stub.reply(text("word " * 20_000), text("Still here."))
    with ServedModel(chosen(stub)) as served:
        with socket.create_connection(("127.0.0.1", int(served.base_url.split(":")[2].split("/")[0]))) as client:
            body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
            client.sendall(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            client.recv(100)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # cut, not closed
        assert asked(served).choices[0].message.content == "Still here."
    assert "Traceback" not in capfd.readouterr().err


def test_the_key_is_that_of_this_process_and_the_agents_goes_nowhere(
    stub: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-of-the-run")
    with ServedModel(chosen(stub, api_key_env="THE_KEY")) as served:
        asked(served)
    assert stub.requests[0].header("authorization") == "Bearer sk-of-the-run"
    assert "of the agent" not in str(stub.requests[0].headers)


def test_a_key_that_is_not_set_is_an_error_before_anything_is_served(stub: StubServer) -> None:
    with pytest.raises(PolicyError, match="the environment variable NOBODY_SET_IT"):
        ServedModel(chosen(stub, api_key_env="NOBODY_SET_IT"))


def test_an_error_of_the_endpoint_is_the_agents_to_see(stub: StubServer) -> None:
    stub.reply(error(429, "slow down"))
    with ServedModel(chosen(stub)) as served, pytest.raises(openai.RateLimitError, match="slow down"):
        asked(served)


def test_an_endpoint_that_is_not_there_is_a_502() -> None:
    servable = Servable(server="forwarding", model={"model": "small", "base_url": "http://127.0.0.1:9/v1"})
    with ServedModel(servable) as served, pytest.raises(openai.InternalServerError, match="cannot be reached"):
        asked(served)


def test_with_a_name_another_model_is_not_there(stub: StubServer) -> None:
    with ServedModel(chosen(stub), name="mine") as served:
        asked(served, model="mine")
        with pytest.raises(openai.NotFoundError, match="only the model 'mine'"):
            asked(served)


@pytest.mark.parametrize("header", [b"", b"Content-Length: many\r\n", b"Content-Length: -1\r\n"])
def test_a_request_that_does_not_say_its_length_is_refused(
    stub: StubServer, header: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with ServedModel(chosen(stub)) as served:
        address = ("127.0.0.1", int(served.base_url.split(":")[2].split("/")[0]))
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.0\r\n" + header + b"\r\n")
            assert client.recv(100).split(b"\r\n")[0].split()[1] == b"411"
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_that_breaks_off_is_no_whole_answer() -> None:
    """The endpoint ends in the middle of its answer: the agent's client gets an error, and not half of it as all."""
    with socket.create_server(("127.0.0.1", 0)) as endpoint:

        def break_off() -> None:
            with endpoint.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")

        thread = threading.Thread(target=break_off)
        thread.start()
        base_url = f"http://127.0.0.1:{endpoint.getsockname()[1]}/v1"
        servable = Servable(server="forwarding", model={"model": "small", "base_url": base_url})
        with ServedModel(servable) as served, pytest.raises(openai.APIConnectionError):
            asked(served)
        thread.join(timeout=10)
