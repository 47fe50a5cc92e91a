"""What the resources of a rollout make of a request: a policy's calls are redirected, a model is chosen, a prompt is
swapped."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agentlightning.adapterkit.listening import is_loopback
from agentlightning.errors import AdapterError
from agentlightning.model_routing import choice_of_rollout
from agentlightning.recording import Recorder, matches
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import ModelChoice, ModelRouter, Policy, Prompt
from agentlightning.redaction import remember
from agentlightning.system_prompts import swap
from agentlightning_openai.additions import with_tokens, with_usage
from agentlightning_openai.internals import OWN_HEADER_PREFIXES, http_client, omitted, signs_requests
from agentlightning_openai.request import Operation, generation_of, path_of

PLACEHOLDER_KEY = "agentlightning-placeholder"
"""What stands for an API key where none is needed: a client cannot be constructed, nor a request made, without."""

ROLLOUT_HEADER = "x-agentlightning-rollout"
RECORDED_HEADER = "x-agentlightning-recorded"
"""Says that whoever calls records the call: a gateway of ours then records no span of its own, and leaves the tokens
that it asked for in the answer."""

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_KEPT_HEADERS = ("accept", "accept-encoding", "connection", "content-type", "user-agent")


class ResourceRouter:
    """The resources of a rollout that are for the calls of ``agent``.

    A `Policy` decides alone where a call goes: where there is one, no `ModelChoice` or `ModelRouter` is looked at. A
    router has chosen once the call's body is known (`rewrite`).
    """

    def __init__(self, recorder: Recorder, agent: str | None) -> None:
        self.policy = recorder.resource(Policy, agent)
        self.choice, self.model_router = _steering(recorder, agent) if self.policy is None else (None, None)
        self.prompts = [
            resource
            for resource in recorder.resources
            if isinstance(resource, Prompt) and matches(agent, resource.agents)
        ]
        self._recorder = recorder

    @property
    def has_resources(self) -> bool:
        """Whether any resource is for this agent; else its calls go out as they are."""
        steering = (self.policy, self.choice, self.model_router)
        return any(resource is not None for resource in steering) or len(self.prompts) > 0

    @property
    def redirects(self) -> bool:
        """Whether the call goes to another endpoint than the agent's client would send it to."""
        return self.policy is not None or (self.choice is not None and self.choice.base_url is not None)

    @property
    def goes_directly(self) -> bool:
        """Whether it goes there past the proxies of the agent's client: always to a policy; to a chosen model only on
        this machine, since one out on the internet may be reached through them alone."""
        return self.policy is not None or (self.choice is not None and _is_here(self.choice))

    def apply(
        self, client: Any, options: Any, body: Mapping[str, Any] | None, operation: Operation
    ) -> tuple[Any, dict[str, Any]]:
        """The options and the body to send; those given are not changed.

        Raises `AdapterError` where that cannot be done: a call is never sent elsewhere than intended.
        """
        if body is None:
            raise AdapterError("the request's body is no JSON object, so nothing in it can be changed")
        changed = self.rewrite(body, operation)
        options = copy.copy(options)
        if self.policy is not None:
            headers = {ROLLOUT_HEADER: self._recorder.rollout_id, RECORDED_HEADER: "1"}
            _redirect(client, options, self.policy, self.policy.base_url, operation, headers)
        elif self.choice is not None:
            if self.choice.base_url is not None:
                _redirect(client, options, self.choice, self.choice.base_url, operation, {})
            elif self.choice.api_key_env is not None:
                options.headers = {**_headers_of(options), "Authorization": f"Bearer {key_of(self.choice)}"}
        options.json_data, options.extra_json = changed, None
        return options, changed

    def rewrite(self, body: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
        """The body to send in the place of ``body``, which is not changed. Raises as `apply` does."""
        if operation == "text_completion" and self.prompts:
            raise AdapterError(
                "the legacy completions API has no system prompt to put another in the place of; "
                "call chat.completions or responses, or leave this agent out of the prompt's agents"
            )
        if self.model_router is not None:
            self.choice = choice_of_rollout(self._recorder, self.model_router, body, operation)
        changed = swap(body, operation, self.prompts)
        if self.policy is not None:
            changed = self._sampled_by(self.policy, changed, operation)
            if self._recorder.repeats is not None:
                _repeat(self._recorder.repeats, changed, operation)
        elif self.choice is not None:
            changed["model"] = self.choice.model
        else:
            return changed
        return with_usage(changed, operation)

    def _sampled_by(self, policy: Policy, body: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
        sampling = dict(policy.sampling)
        if self._recorder.seed is not None and "seed" not in sampling:
            sampling["seed"] = _next_seed(self._recorder)
        limits = [sampling.pop(name) for name in _LIMITS if name in sampling]
        changed = with_tokens({**body, **sampling, "model": policy.model}, operation)
        if limits:
            for name in _LIMITS:
                changed.pop(name, None)
            changed["max_output_tokens" if operation == "responses" else "max_tokens"] = limits[0]
        return changed


def _steering(recorder: Recorder, agent: str | None) -> tuple[ModelChoice | None, ModelRouter | None]:
    """The first choice or router that is for an agent."""
    for resource in recorder.resources:
        if isinstance(resource, ModelChoice | ModelRouter) and matches(agent, resource.agents):
            return (resource, None) if isinstance(resource, ModelChoice) else (None, resource)
    return None, None


def _repeat(answers: RecordedAnswers, body: dict[str, Any], operation: Operation) -> None:
    """Has a call answered as it was in the rollout that this one repeats, while it does. Raises `AdapterError`."""
    if body.get("n") not in (None, 1):
        raise AdapterError("a call for several answers at once (n) cannot be given its recorded ones again")
    answer = answers.take(generation_of(operation, body))
    tokens = answer.exact_tokens if answer is not None else None
    if answer is not None and tokens is not None:
        prompt, response, logprobs = (array.tolist() for array in tokens)
        body["replay"] = {
            "prompt_token_ids": prompt,
            "token_ids": response,
            "logprobs": logprobs,
            "policy_version": answer.policy_version,
        }


def _next_seed(recorder: Recorder) -> int:
    """Another for each redirected call of a rollout, the same again for the same seed."""
    calls = recorder.adapter_state.setdefault("openai", itertools.count())
    return zlib.crc32(f"{recorder.seed}/{next(calls)}".encode()) & 0x7FFFFFFF


def _is_here(choice: ModelChoice) -> bool:
    return is_loopback(urlsplit(choice.base_url or "").hostname or "")


def key_of(resource: Policy | ModelChoice) -> str:
    """The key for a resource's endpoint, from the environment; a placeholder where it needs none.

    Raises `AdapterError` when the variable it names is not set.
    """
    if resource.api_key_env is None:
        return PLACEHOLDER_KEY
    key = os.environ.get(resource.api_key_env)
    if not key:
        raise AdapterError(
            f"{resource.name}: the environment variable {resource.api_key_env}, which should hold its API key, "
            "is not set; set it, or leave api_key_env out"
        )
    remember(key)
    return key


def _redirect(
    client: Any,
    options: Any,
    resource: Policy | ModelChoice,
    base_url: str,
    operation: Operation,
    added: Mapping[str, str],
) -> None:
    """Sends the request to another endpoint, with that one's key and nothing of the agent's credentials.

    Any header, query parameter or key that the agent's client would add may be a secret of the endpoint it
    was made for, so none goes along.
    """
    http = http_client(client)
    carried = [
        what
        for what, there in (
            ("an auth= of its http_client", getattr(http, "auth", None)),
            ("params= of its http_client", getattr(http, "params", None)),
            ("a provider that signs its requests", signs_requests(client)),
        )
        if there
    ]
    if carried:
        raise AdapterError(
            f"the agent's client carries {' and '.join(carried)}, which would be sent to {base_url} as well; "
            "construct the client without, where its calls are redirected"
        )
    own = [name for name in getattr(http, "headers", ()) if not _is_kept(name) and name.lower() != "authorization"]
    omit = omitted()
    headers: dict[str, Any] = dict.fromkeys(own, "")
    headers.update((name, omit) for name in [*client.default_headers, "api-key"] if not _is_kept(name))
    headers.update((name, value) for name, value in _headers_of(options).items() if _is_kept(name))
    headers.update(added)
    # Last, and beside an "authorization" left out: openai 2 tells header names apart by their case.
    headers.pop("Authorization", None)
    headers["Authorization"] = f"Bearer {key_of(resource)}"
    options.url = base_url.rstrip("/") + path_of(operation)
    options.headers = headers
    options.params = dict.fromkeys(client.default_query, omit)
    if hasattr(options, "security"):
        options.security = {}


def goes_to_gateway(client: Any, options: Any, rollout_id: str) -> bool:
    """Whether a request that is not redirected goes to a gateway that would record it for the rollout: its address, its
    headers or its key name that one."""
    address = options.url if "://" in options.url else str(client.base_url)
    if f"/rollouts/{rollout_id}/" in urlsplit(address).path:
        return True
    headers = {**client.default_headers, **_headers_of(options)}
    return _is_key_for(rollout_id, getattr(client, "api_key", None)) or any(
        name.lower() == ROLLOUT_HEADER and value == rollout_id for name, value in headers.items()
    )


def _is_key_for(rollout_id: str, key: Any) -> bool:
    """Whether a key is one of a Lightning Server (`agl server-key`, a JSON Web Token) for that rollout."""
    parts = key.split(".") if isinstance(key, str) else []
    if len(parts) != 3:
        return False
    try:
        claims = json.loads(base64.urlsafe_b64decode(f"{parts[1]}=="))
    except ValueError:
        return False
    return isinstance(claims, dict) and claims.get("rollout") == rollout_id


def recorded_here(options: Any) -> None:
    """Says to that gateway that the call is recorded here."""
    options.headers = {**_headers_of(options), RECORDED_HEADER: "1"}


def _is_kept(name: str) -> bool:
    return name.lower() in _KEPT_HEADERS or name.lower().startswith(OWN_HEADER_PREFIXES)


def _headers_of(options: Any) -> dict[str, Any]:
    return dict(options.headers) if isinstance(options.headers, Mapping) else {}
