"""What resources make of a request: a policy's calls are redirected, a model is chosen, a prompt is swapped."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai._models import FinalRequestOptions
from stub_answers import Answer, Choice, text, tool_call
from stub_server import StubServer

from agentlightning import recording, semconv
from agentlightning.errors import AdapterError
from agentlightning.records import ModelChoice, Policy, Prompt, encode

KEY = "sk-the-agents-own-key"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture
def policy(policy_stub) -> Policy:
    return Policy(
        name="policy",
        version=3,
        model="tiny",
        base_url=policy_stub.base_url,
        sampling={"temperature": 1.0, "top_p": 1.0},
    )


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt", "messages": MESSAGES, **options})


def test_a_policys_calls_go_to_its_endpoint(rollout, stub, policy_stub, policy, client) -> None:
    with rollout(policy):
        answer = ask(client, temperature=0.1, max_tokens=5)
    assert answer.choices[0].message.content == "Hello."
    assert stub.requests == []
    (request,) = policy_stub.requests
    assert request.path == "/v1/chat/completions"
    assert request.json == {
        "model": "tiny",
        "messages": MESSAGES,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 5,
        "logprobs": True,
        "return_token_ids": True,
    }
    assert request.header("x-agentlightning-rollout") == "rollout-1"


def test_a_redirected_call_is_recorded_with_its_policy_and_exact_tokens(rollout, policy_stub, policy, client) -> None:
    policy_stub.reply(Answer([Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.0])], [1, 2]))
    with rollout(policy):
        ask(client, temperature=0.1)
    said = rollout.span.generation
    assert (said.policy, said.policy_version, said.model, said.temperature) == ("policy", 3, "tiny", 1.0)
    assert said.provenance == "exact"
    assert (said.prompt_ids.tolist(), said.response_ids.tolist()) == ([1, 2], [5, 6])
    assert rollout.span.attributes[semconv.REDIRECTED] is True


def test_the_version_that_wrote_the_answer_counts(rollout, policy_stub, policy, client) -> None:
    policy_stub.reply(text("ok", policy_version=9))
    with rollout(policy):
        ask(client)
    assert rollout.span.generation.policy_version == 9


async def test_an_asynchronous_call_is_redirected(rollout, stub, policy_stub, policy, async_client) -> None:
    with rollout(policy):
        await async_client.chat.completions.create(model="gpt", messages=MESSAGES)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 1)


def test_only_the_trained_agents_calls_are_redirected(rollout, stub, policy_stub, policy, client) -> None:
    policy.agents = ("solver*",)
    with rollout(policy):
        with recording.span("solver-1", agent="solver-1"):
            ask(client)
        with recording.span("judge", agent="judge"):
            ask(client)
    assert (len(stub.requests), len(policy_stub.requests)) == (1, 1)
    solver, judge = (span for span in rollout.spans if span.kind == "llm")
    assert (solver.agent, solver.generation.policy) == ("solver-1", "policy")
    assert (judge.agent, judge.generation.policy) == ("judge", None)
    assert stub.requests[0].header("x-agentlightning-rollout") is None


@pytest.mark.parametrize("stream", [False, True])
def test_the_agent_gets_no_fields_that_it_did_not_ask_for(rollout, stub, policy, policy_stub, client, stream) -> None:
    reply = Answer([Choice("ok")], policy_version=1)
    stub.reply(reply)
    policy_stub.reply(reply)

    def got() -> Any:
        answer = ask(client, stream=stream)
        return [chunk.to_dict() for chunk in answer] if stream else answer.to_dict()

    stub.reply(Answer([Choice("ok")]))
    plain = got()
    with rollout(policy):
        routed = got()
    for one in routed if stream else [routed]:
        one["model"] = "gpt"
        one.pop("usage", None) if stream else None
    for one in plain if stream else [plain]:
        one.pop("policy_version", None)
    assert routed == plain
    assert rollout.span.generation.provenance == "exact"


def test_the_agent_keeps_the_logprobs_that_it_asked_for(rollout, policy, client) -> None:
    with rollout(policy):
        answer = ask(client, logprobs=True)
    assert answer.choices[0].logprobs.content[0].logprob == -0.25
    assert "token_ids" not in answer.choices[0].to_dict()


def test_the_agent_keeps_the_token_ids_that_it_asked_for(rollout, policy, client) -> None:
    with rollout(policy):
        answer = ask(client, extra_body={"return_token_ids": True})
    assert answer.prompt_token_ids == [1, 2, 3]
    assert answer.choices[0].logprobs is None


def test_a_redirected_stream_has_usage_and_the_agent_does_not_see_its_chunk(
    rollout, policy, policy_stub, client
) -> None:
    with rollout(policy):
        chunks = list(ask(client, stream=True))
    assert policy_stub.requests[0].json["stream_options"] == {"include_usage": True}
    assert all(chunk.choices for chunk in chunks)
    assert rollout.span.generation.usage.output_tokens == 6


def test_the_usage_chunk_is_the_agents_where_it_asked_for_it(rollout, policy, client) -> None:
    with rollout(policy):
        chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 6


async def test_an_asynchronous_redirected_stream_is_exact(rollout, policy, async_client) -> None:
    with rollout(policy):
        stream = await async_client.chat.completions.create(model="gpt", messages=MESSAGES, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices for chunk in chunks)
    assert rollout.span.generation.provenance == "exact"


def test_the_agents_extra_body_does_not_undo_the_redirection(rollout, policy, policy_stub, client) -> None:
    with rollout(policy):
        ask(client, extra_body={"temperature": 0.0, "logprobs": False, "top_k": 4})
    body = policy_stub.requests[0].json
    assert (body["temperature"], body["logprobs"], body["top_k"]) == (1.0, True, 4)


def test_a_limit_of_the_policy_takes_the_place_of_the_agents(rollout, policy, policy_stub, client) -> None:
    policy = policy.sampled_with(max_tokens=16)
    with rollout(policy):
        ask(client, max_completion_tokens=1000)
        client.responses.create(model="gpt", input="Hi", max_output_tokens=1000)
    chat, response = (request.json for request in policy_stub.requests)
    assert chat["max_tokens"] == 16
    assert "max_completion_tokens" not in chat
    assert response["max_output_tokens"] == 16
    assert "max_tokens" not in response


def _seeds(rollout: Any, policy: Policy, policy_stub: StubServer, client: openai.OpenAI, seed: int | None) -> list[Any]:
    policy_stub.requests.clear()
    with rollout(policy, seed=seed):
        ask(client, seed=42)
        ask(client, seed=42)
    return [request.json["seed"] for request in policy_stub.requests]


def test_each_call_of_a_seeded_rollout_has_a_seed_of_its_own(rollout, policy, policy_stub, client) -> None:
    first = _seeds(rollout, policy, policy_stub, client, 7)
    assert len({*first, 42}) == 3
    assert _seeds(rollout, policy, policy_stub, client, 7) == first
    assert not set(_seeds(rollout, policy, policy_stub, client, 8)) & set(first)
    assert all(0 <= seed < 2**31 for seed in first)


def test_a_seed_of_the_policys_sampling_stays(rollout, policy, policy_stub, client) -> None:
    assert _seeds(rollout, policy.sampled_with(seed=5), policy_stub, client, 7) == [5, 5]


def test_without_a_seed_the_agents_stays(rollout, policy, policy_stub, client) -> None:
    assert _seeds(rollout, policy, policy_stub, client, None) == [42, 42]


def _sent(stub: StubServer) -> bytes:
    return b"".join(f"{request.path} {request.headers}".encode() + request.body for request in stub.requests)


def test_nothing_of_the_agents_credentials_reaches_the_policy(rollout, policy, policy_stub, stub) -> None:
    client = openai.OpenAI(
        base_url=stub.base_url,
        api_key=KEY,
        organization="org-secret",
        project="project-secret",
        default_headers={"authorization": "Bearer header-secret", "x-gateway-key": "gateway-secret"},
        default_query={"key": "query-secret"},
        max_retries=0,
    )
    with rollout(policy):
        ask(client, extra_headers={"x-api-key": "extra-secret"}, extra_query={"sig": "signature-secret"})
        list(ask(client, stream=True))
        client.chat.completions.with_raw_response.create(model="gpt", messages=MESSAGES)
    assert len(policy_stub.requests) == 3
    assert b"secret" not in _sent(policy_stub)
    assert KEY.encode() not in _sent(policy_stub)
    assert {request.header("authorization") for request in policy_stub.requests} == {
        "Bearer agentlightning-placeholder"
    }
    assert b"secret" not in encode(rollout.spans)


@pytest.mark.skipif(
    "security" not in FinalRequestOptions.model_fields, reason="this client asks for its key whatever it sends"
)
def test_a_key_that_is_made_for_each_call_is_not_asked_for(rollout, policy, policy_stub, stub) -> None:
    def key() -> str:
        raise RuntimeError("the vault is closed")

    with rollout(policy):
        ask(openai.OpenAI(base_url=stub.base_url, api_key=key, max_retries=0))
    assert policy_stub.requests[0].header("authorization") == "Bearer agentlightning-placeholder"


def test_an_azure_client_is_redirected_without_its_key(rollout, policy, policy_stub, stub) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=stub.base_url, api_key=KEY, api_version="2024-06-01", azure_deployment="d", max_retries=0
    )
    with rollout(policy):
        ask(client)
        client.responses.create(model="gpt", input="Hi")
    assert [request.path for request in policy_stub.requests] == ["/v1/chat/completions", "/v1/responses"]
    assert KEY.encode() not in _sent(policy_stub)


def test_headers_of_the_http_client_are_blanked(rollout, policy, policy_stub, stub) -> None:
    from openai import DefaultHttpxClient

    http = DefaultHttpxClient(headers={"x-api-key": "http-secret"})
    with rollout(policy):
        ask(openai.OpenAI(base_url=stub.base_url, api_key=KEY, http_client=http))
    assert b"http-secret" not in _sent(policy_stub)


@pytest.mark.parametrize("options", [{"auth": ("user", "secret")}, {"params": {"key": "secret"}}])
def test_an_http_client_that_adds_credentials_is_not_redirected(rollout, policy, policy_stub, stub, options) -> None:
    from openai import DefaultHttpxClient

    client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, http_client=DefaultHttpxClient(**options))
    with rollout(policy), pytest.raises(AdapterError, match="http_client"):
        ask(client)
    assert stub.requests == policy_stub.requests == []


def test_a_policys_own_key_comes_from_the_environment(rollout, policy, policy_stub, client, monkeypatch) -> None:
    monkeypatch.setenv("POLICY_KEY", "sk-the-policys")
    policy.api_key_env = "POLICY_KEY"
    with rollout(policy):
        ask(client)
    assert policy_stub.requests[0].header("authorization") == "Bearer sk-the-policys"
    assert b"sk-the-policys" not in encode(rollout.spans)


def test_a_call_that_cannot_be_redirected_goes_nowhere(rollout, policy, policy_stub, stub, client, monkeypatch) -> None:
    monkeypatch.delenv("POLICY_KEY", raising=False)
    policy.api_key_env = "POLICY_KEY"
    with rollout(policy), pytest.raises(AdapterError, match="POLICY_KEY"):
        ask(client)
    assert stub.requests == policy_stub.requests == []
    failure = rollout.span.failure
    assert (failure.type, failure.fault) == ("redirect_failed", "infrastructure")


def test_a_bug_of_ours_sends_a_policys_call_nowhere(rollout, policy, policy_stub, stub, client, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agentlightning_openai.call.locate", broken)
    with rollout(policy), pytest.raises(AdapterError, match="a bug"):
        ask(client)
    assert stub.requests == policy_stub.requests == []


def test_a_legacy_completion_has_no_prompt_to_swap_and_goes_nowhere(rollout, policy_stub, stub, client) -> None:
    with rollout(Prompt(name="p", template="Be kind.")), pytest.raises(AdapterError, match="legacy completions"):
        client.completions.create(model="gpt", prompt="Hi")
    assert stub.requests == policy_stub.requests == []


def test_embeddings_are_never_redirected(rollout, policy, policy_stub, stub, client) -> None:
    with rollout(policy):
        client.embeddings.create(model="e", input="x")
    assert (len(stub.requests), len(policy_stub.requests)) == (1, 0)


def test_an_agent_that_ends_late_is_still_redirected(rollout, policy, policy_stub, stub, client) -> None:
    with rollout(policy) as recorder:
        recorder.close()
        ask(client)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 1)
    assert rollout.spans == []


def test_a_model_choice_changes_the_model_and_leaves_the_endpoint(rollout, stub, client) -> None:
    with rollout(ModelChoice(name="choice", model="cheap")):
        answer = ask(client)
    (request,) = stub.requests
    assert request.json == {"model": "cheap", "messages": MESSAGES}
    assert request.header("authorization") == f"Bearer {KEY}"
    assert answer.model == rollout.span.generation.model == "cheap"
    assert semconv.REDIRECTED not in rollout.span.attributes
    assert rollout.span.generation.policy is None


def test_a_model_choice_with_an_endpoint_has_a_key_of_its_own(rollout, stub, policy_stub, client, monkeypatch) -> None:
    monkeypatch.setenv("CHOICE_KEY", "sk-the-choices")
    choice = ModelChoice(name="choice", model="cheap", base_url=policy_stub.base_url, api_key_env="CHOICE_KEY")
    with rollout(choice):
        ask(client)
    assert stub.requests == []
    (request,) = policy_stub.requests
    assert request.json == {"model": "cheap", "messages": MESSAGES}
    assert request.header("authorization") == "Bearer sk-the-choices"
    assert request.header("x-agentlightning-rollout") is None
    assert KEY.encode() not in _sent(policy_stub)


def test_a_model_choice_with_a_key_for_the_agents_endpoint(rollout, stub, client, monkeypatch) -> None:
    monkeypatch.setenv("CHOICE_KEY", "sk-the-choices")
    with rollout(ModelChoice(name="choice", model="cheap", api_key_env="CHOICE_KEY")):
        ask(client)
    assert stub.requests[0].header("authorization") == "Bearer sk-the-choices"


def test_a_chosen_models_stream_has_usage_for_its_price(rollout, client) -> None:
    with rollout(ModelChoice(name="choice", model="cheap")):
        chunks = list(ask(client, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert rollout.span.generation.usage.output_tokens == 6


def test_a_policy_goes_before_a_model_choice(rollout, policy, policy_stub, client) -> None:
    with rollout(ModelChoice(name="choice", model="cheap"), policy):
        ask(client)
    assert policy_stub.requests[0].json["model"] == "tiny"


def test_a_prompt_takes_the_place_of_the_system_message(rollout, stub, client) -> None:
    with rollout(
        Prompt(name="prompt", template="Be {tone}. {literal} {} {w?}", variables={"tone": "kind {literal}", "w?": "x"})
    ):
        ask(client)
    system = {"role": "system", "content": "Be kind {literal}. {literal} {} x"}
    assert stub.requests[0].json == {"model": "gpt", "messages": [system, MESSAGES[1]]}
    assert rollout.span.generation.messages == [system, MESSAGES[1]]


def test_a_prompt_is_put_in_front_where_there_is_none(rollout, stub, client) -> None:
    with rollout(Prompt(name="prompt", template="Be kind.")):
        ask(client, messages=MESSAGES[1:])
    assert stub.requests[0].json["messages"] == [{"role": "system", "content": "Be kind."}, MESSAGES[1]]


def test_a_prompt_for_one_text_replaces_that_text_only(rollout, stub, client) -> None:
    resources = [
        Prompt(name="a", template="A2", replaces="A"),
        Prompt(name="b", template="B2", replaces="B"),
    ]
    messages: list[Any] = [
        {"role": "developer", "content": [{"type": "text", "text": "B"}]},
        {"role": "system", "content": "C"},
        {"role": "user", "content": "A"},
    ]
    with rollout(*resources):
        ask(client, messages=messages)
        ask(client, messages=messages[2:])
    first, second = (request.json["messages"] for request in stub.requests)
    assert first == [{"role": "developer", "content": "B2"}, *messages[1:]]
    assert second == messages[2:]


@pytest.mark.parametrize(
    ("request_", "sent"),
    [
        ({"instructions": "Old.", "input": "Hi"}, {"instructions": "New.", "input": "Hi"}),
        (
            {"input": [{"role": "system", "content": "Old."}, {"role": "user", "content": "Hi"}]},
            {"input": [{"role": "system", "content": "New."}, {"role": "user", "content": "Hi"}]},
        ),
        ({"input": "Hi"}, {"instructions": "New.", "input": "Hi"}),
    ],
    ids=["instructions", "system item", "none"],
)
def test_a_prompt_takes_the_place_of_a_responses_instructions(rollout, stub, client, request_, sent) -> None:
    with rollout(Prompt(name="prompt", template="New.")):
        client.responses.create(model="gpt", **request_)
    assert stub.requests[0].json == {"model": "gpt", **sent}
    assert rollout.span.generation.messages[0] == {"role": "system", "content": "New."}


def test_a_responses_prompt_for_another_text_is_left_alone(rollout, stub, client) -> None:
    with rollout(Prompt(name="prompt", template="New.", replaces="Something else")):
        client.responses.create(model="gpt", input="Hi", instructions="Old.")
    assert stub.requests[0].json == {"model": "gpt", "input": "Hi", "instructions": "Old."}


def test_a_prompt_goes_along_with_a_redirection(rollout, policy, policy_stub, client) -> None:
    with rollout(Prompt(name="prompt", template="New."), policy):
        ask(client)
    assert policy_stub.requests[0].json["messages"][0]["content"] == "New."


def test_a_conversation_with_tools_is_redirected_as_a_whole(rollout, policy, policy_stub, client) -> None:
    policy_stub.reply(tool_call("calculator", expression="3 + 4"), text("7"))
    messages: list[Any] = list(MESSAGES)
    with rollout(policy):
        first = ask(client, messages=messages).choices[0].message
        messages += [first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "7"}]
        ask(client, messages=messages)
    sent = policy_stub.requests[1].json["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool"]
    assert rollout.spans[1].generation.messages[2]["tool_calls"] == rollout.spans[0].generation.response["tool_calls"]


def test_an_httpx_client_of_the_agent_is_redirected(rollout, policy, policy_stub, stub) -> None:
    with httpx.Client() as http, rollout(policy):
        ask(openai.OpenAI(base_url=stub.base_url, api_key=KEY, http_client=http))
    assert len(policy_stub.requests) == 1
    assert rollout.span.generation.provenance == "exact"
