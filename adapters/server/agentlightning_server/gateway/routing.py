"""Where a call goes, and as what: by the resources of its rollout, else to the upstreams of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlightning.errors import AdapterError
from agentlightning.recording import Recorder
from agentlightning.records import ModelChoice, Policy, Prompt
from agentlightning_openai.additions import asks_for_logprobs, with_tokens, with_usage
from agentlightning_openai.request import Operation
from agentlightning_openai.router import ROLLOUT_HEADER, ResourceRouter, key_of
from agentlightning_server.errors import RequestError
from agentlightning_server.gateway.forward import Forwarder
from agentlightning_server.gateway.upstreams import Upstream, Upstreams

AGENT_HEADER = "x-agentlightning-agent"


@dataclass(slots=True)
class Destination:
    """Who answers a call, and what is asked. ``without_tokens`` is what to ask where they refuse to be asked for
    tokens; None where they must not."""

    upstreams: Upstreams
    body: dict[str, Any]
    without_tokens: dict[str, Any] | None = None
    policy: Policy | None = None
    is_redirected: bool = False
    key: str | None = None
    routed_to: str | None = None
    """The name of the choice that a router made for the call."""

    def headers(self, rollout_id: str) -> dict[str, str]:
        """Those that the request carries beside the client's."""
        return {ROLLOUT_HEADER: rollout_id} if self.policy is not None else {}


class Routing:
    """Finds destinations; ``configured`` are the upstreams of the server, of which there may be none."""

    def __init__(self, configured: Upstreams, forwarder: Forwarder) -> None:
        self.configured = configured
        self._forwarder = forwarder

    def destination(
        self, recorder: Recorder, agent: str | None, original: Mapping[str, Any], operation: Operation
    ) -> Destination:
        """Where a call of a rollout goes. Raises `AdapterError` where it cannot be sent as its resources say, and
        `RequestError` where the server has no upstream, or cannot tell which policy is meant."""
        router = _router(recorder, agent)
        if not router.has_resources:
            return self._with_tokens(dict(original), original, operation)
        try:
            body = router.rewrite(original, operation)
        except AdapterError:
            raise
        except Exception as error:
            raise AdapterError(f"the request could not be matched with the rollout's resources: {error}") from error
        destination = self._of_resources(router, body, original, operation)
        if router.model_router is not None and router.choice is not None:
            destination.routed_to = router.choice.name
        return destination

    def _of_resources(
        self, router: ResourceRouter, body: dict[str, Any], original: Mapping[str, Any], operation: Operation
    ) -> Destination:
        if router.policy is not None:
            upstreams = self._of(router.policy, router.policy.base_url)
            return Destination(upstreams, body, policy=router.policy, is_redirected=True)
        if router.choice is not None and router.choice.base_url is not None:
            return Destination(self._of(router.choice, router.choice.base_url), body, is_redirected=True)
        destination = self._with_tokens(body, original, operation)
        if router.choice is not None and router.choice.api_key_env is not None:
            destination.key = key_of(router.choice)
        return destination

    def destination_as_asked(self, original: Mapping[str, Any], operation: Operation) -> Destination:
        """Where a call goes whose caller has applied the resources of its rollout: to an upstream of the server. Raises
        `RequestError` where it has none."""
        upstreams = self.default()
        if str(original.get("model")) in upstreams.without_tokens:
            return Destination(upstreams, dict(original))
        return Destination(upstreams, _asking(original, original, operation), without_tokens=dict(original))

    def upstreams_for_models(self, recorder: Recorder | None) -> Upstreams:
        """Whose list of models a client is shown."""
        policies = [it for it in recorder.resources if isinstance(it, Policy)] if recorder is not None else []
        return self._of(policies[0], policies[0].base_url) if policies else self.default()

    def default(self) -> Upstreams:
        """The upstreams of the server. Raises `RequestError` where it has none."""
        if not self.configured.all:
            raise RequestError(
                404, "this server has no upstream, and no policy is for this call: start it with agl server --upstream"
            )
        return self.configured

    def _of(self, resource: Policy | ModelChoice, base_url: str) -> Upstreams:
        """The endpoint of a resource; where that is one of the server's upstreams, all of them, its replicas."""
        if any(upstream.url == base_url.rstrip("/") for upstream in self.configured.all):
            return self.configured
        return Upstreams([Upstream(base_url, key_of(resource))], self._forwarder.is_well)

    def _with_tokens(self, body: dict[str, Any], original: Mapping[str, Any], operation: Operation) -> Destination:
        upstreams = self.default()
        if str(body.get("model")) in upstreams.without_tokens:
            return Destination(upstreams, body)
        return Destination(upstreams, with_usage(_asking(body, original, operation), operation), without_tokens=body)


def _asking(body: Mapping[str, Any], original: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
    """A request that asks for tokens beside what ``original`` asks for."""
    asking = with_tokens(body, operation)
    if asks_for_logprobs(original):
        asking["logprobs"] = original["logprobs"]
    return asking


def _router(recorder: Recorder, agent: str | None) -> ResourceRouter:
    """A request that does not say which agent makes it gets the prompts that are for all, and those that name the text
    which they replace. Raises `RequestError` where only an agent's name would tell whether a policy is for it."""
    router = ResourceRouter(recorder, agent)
    if agent is not None:
        return router
    policies = [resource for resource in recorder.resources if isinstance(resource, Policy)]
    if policies and router.policy is None:
        named = ", ".join(sorted({pattern for policy in policies for pattern in policy.agents}))
        raise RequestError(
            400, f"the policies of this rollout are for {named}: say which agent calls in the header {AGENT_HEADER}"
        )
    router.prompts = [
        resource
        for resource in recorder.resources
        if isinstance(resource, Prompt) and (resource in router.prompts or resource.replaces is not None)
    ]
    return router
