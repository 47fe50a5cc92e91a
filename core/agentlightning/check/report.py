"""What is known of the first rollout, as a record: who acted, which calls went where, tools, answers, rewards, times.

Pure functions of what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentlightning import semconv
from agentlightning.diagnostics import CUT_OFF, holds_unread_call, is_well_formed
from agentlightning.recording import matches
from agentlightning.records import AnyResource, ModelChoice, ModelRouter, Policy, Record, Rollout, Span, Task

NAMELESS = "(no name)"


class Route(Record, kw_only=True):
    """Where calls of one agent went: ``to`` is the policy's name or a server, ``model`` what it was asked for.

    Of the ``tokens`` that were written, ``exact`` are the policy's, with ids and log-probabilities: those can be
    trained on.
    """

    to: str
    model: str | None
    calls: int = 0
    failed: int = 0
    tokens: int = 0
    exact: int = 0


class AgentReport(Record, kw_only=True):
    """One agent that acted, and its model calls by where they went."""

    name: str
    trained: bool
    routes: list[Route] = []


class ToolReport(Record, kw_only=True):
    """One tool: by which agents it was offered, how often the model called it, and how many of those calls cannot be
    carried out (arguments that are no JSON object, a name that nobody offered)."""

    name: str
    offered_to: list[str] = []
    calls: int = 0
    malformed: int = 0


class CheckReport(Record, kw_only=True):
    """What is known of the first rollout. ``errors`` make a run pointless; ``warnings`` do not.

    ``seconds``: ``start`` (loading and serving the model), ``agent``, ``model`` (its model calls) and ``reward``.
    ``malformed`` counts the answers that hold a tool call which nobody could read.
    """

    task: Task
    rollout: Rollout
    spans: list[Span]
    policies: list[str]
    """The names of the policies under training."""
    agents: list[AgentReport]
    tools: list[ToolReport]
    answers: int
    cut_off: int
    malformed: int
    seconds: dict[str, float]
    errors: list[str] = []
    warnings: list[str] = []
    conclusive: bool = True
    """False where a rollout of another task may well have no error: the trained agent had nothing to do in this one,
    or the reward cannot tell."""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend before a run. An agent that failed has something to mend, unless its
        framework refused an answer that was cut off."""
        return not self.errors and (self.rollout.failure is None or self._refused_what_was_cut_off())

    def _refused_what_was_cut_off(self) -> bool:
        answers = [span.generation for span in self.spans if span.generation is not None and span.generation.response]
        raised = self.rollout.failure.exception if self.rollout.failure is not None else None
        is_cut_off = bool(answers) and answers[-1].finish_reason in CUT_OFF
        return is_cut_off and raised is not None and not raised.startswith("builtins.")


class Subject:
    """What the run changes: the resources that the trained agents' calls have to reach, where there are any: one, or
    several policies, each with agents of its own."""

    def __init__(self, resources: Sequence[AnyResource], train: Sequence[str]) -> None:
        steering = [resource for resource in resources if isinstance(resource, Policy | ModelChoice | ModelRouter)]
        self.resource = steering[-1] if steering else None
        policies = [resource for resource in steering if isinstance(resource, Policy)]
        self.resources = policies if isinstance(self.resource, Policy) else steering[-1:]
        patterns = [pattern for resource in self.resources for pattern in resource.agents]
        self.patterns = tuple(patterns if self.resources else train)
        self.is_one_of_several = isinstance(self.resource, ModelChoice | ModelRouter)

    def trains(self, agent: str | None) -> bool:
        """Whether an agent is one of those that are trained."""
        return matches(agent, self.patterns)

    def for_agent(self, agent: str | None) -> Policy | ModelChoice | ModelRouter | None:
        """What answers an agent's calls: the first that is for it."""
        return next((resource for resource in self.resources if matches(agent, resource.agents)), None)

    def answered(self, call: Span) -> bool:
        """Whether a call did what the run is about: its policy's own tokens, or the chosen model's answer."""
        generation = call.generation
        if generation is None or call.failure is not None or not self.trains(call.agent):
            return False
        resource = self.for_agent(call.agent)
        if isinstance(resource, Policy):
            return generation.policy == resource.name and _exact_tokens(call) > 0
        return True


def describe_rollout(
    task: Task, rollout: Rollout, spans: Sequence[Span], subject: Subject, start_seconds: float = 0.0
) -> CheckReport:
    """The facts of a rollout, without a verdict. ``start_seconds``: how long it took until it could begin."""
    spans = sorted(spans, key=lambda span: span.index)
    calls = [span for span in spans if span.kind == "llm"]
    answers = [call.generation for call in calls if call.generation is not None and call.generation.response]
    return CheckReport(
        task=task,
        rollout=rollout,
        spans=spans,
        policies=[resource.name for resource in subject.resources if isinstance(resource, Policy)],
        agents=_agents(spans, subject),
        tools=_tools(calls),
        answers=len(answers),
        cut_off=sum(answer.finish_reason in CUT_OFF for answer in answers),
        malformed=sum(bool(answer.tools) and holds_unread_call(answer) for answer in answers),
        seconds={"start": start_seconds, **_seconds(rollout, spans)},
    )


def destination(call: Span) -> str:
    """Where a model call went: the policy's name, or a server."""
    if call.generation is not None and call.generation.policy is not None:
        return call.generation.policy
    host, port = call.attributes.get(semconv.SERVER_ADDRESS), call.attributes.get(semconv.SERVER_PORT)
    return "an unknown endpoint" if host is None else str(host) if port in (443, None) else f"{host}:{port}"


def _agents(spans: Sequence[Span], subject: Subject) -> list[AgentReport]:
    agents: dict[str | None, AgentReport] = {}
    for span in spans:
        if span.kind == "llm" or (span.kind in ("agent", "tool", "handoff") and span.agent is not None):
            name = span.agent
            agent = agents.setdefault(name, AgentReport(name=name or NAMELESS, trained=subject.trains(name)))
            if span.kind == "llm":
                _count(_route(agent, span), span)
    return list(agents.values())


def _route(agent: AgentReport, call: Span) -> Route:
    to, model = destination(call), call.attributes.get(semconv.REQUEST_MODEL)
    for route in agent.routes:
        if (route.to, route.model) == (to, model):
            return route
    agent.routes = [*agent.routes, Route(to=to, model=model)]
    return agent.routes[-1]


def _count(route: Route, call: Span) -> None:
    answer, exact = call.generation, _exact_tokens(call)
    route.calls += 1
    route.failed += call.failure is not None
    route.tokens += answer.usage.output_tokens if answer is not None and answer.usage is not None else exact
    route.exact += exact if answer is not None and answer.policy is not None else 0


def _exact_tokens(call: Span) -> int:
    answer = call.generation
    return 0 if answer is None or answer.response_ids is None else len(answer.response_ids)


def _tools(calls: Sequence[Span]) -> list[ToolReport]:
    tools: dict[str, ToolReport] = {}
    for call in calls:
        offered = [_name_of(tool) for tool in call.generation.tools] if call.generation is not None else []
        for name in offered:
            tool = tools.setdefault(name, ToolReport(name=name))
            agent = call.agent or NAMELESS
            tool.offered_to = list(dict.fromkeys([*tool.offered_to, agent]))
        for made in _tool_calls(call):
            name = str((made.get("function") or made.get("custom") or {}).get("name"))
            tool = tools.setdefault(name, ToolReport(name=name))
            tool.calls += 1
            tool.malformed += name not in offered or not is_well_formed(made)
    return list(tools.values())


def _name_of(tool: Any) -> str:
    function = tool.get("function", tool) if isinstance(tool, dict) else {}
    return str(function.get("name") or tool.get("type", tool)) if isinstance(function, dict) else str(tool)


def _tool_calls(call: Span) -> list[dict[str, Any]]:
    response = call.generation.response if call.generation is not None else None
    return (response or {}).get("tool_calls") or []


def _seconds(rollout: Rollout, spans: Sequence[Span]) -> dict[str, float]:
    """How long the agent, its model calls (those at once counted once) and the rewards took."""
    started, ended = rollout.started_at or 0.0, rollout.ended_at or 0.0
    last = max((span.ended_at or 0.0 for span in spans if span.kind != "reward"), default=started)
    intervals = sorted((span.started_at, span.ended_at or span.started_at) for span in spans if span.kind == "llm")
    waited, until = 0.0, 0.0
    for begin, end in intervals:
        waited += max(0.0, end - max(begin, until))
        until = max(until, end)
    return {"agent": last - started, "model": waited, "reward": max(0.0, ended - last)}
