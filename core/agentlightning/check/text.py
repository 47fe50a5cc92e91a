"""What a `agentlightning.check.report.CheckReport` says, as text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from agentlightning.check.report import AgentReport, CheckReport, Route, ToolReport
from agentlightning.formatting import format_duration
from agentlightning.records import Rollout

COLUMNS = 80
LABEL = 11
UNBROKEN = "\u00a0"


def render(report: CheckReport) -> str:
    """The report as lines, the errors last."""
    rollout = report.rollout
    ended = rollout.status if rollout.failure is None else f"{rollout.status}: {rollout.failure.type}"
    lines = textwrap.wrap(f"first rollout, which counts for nothing: task {report.task.id}, {ended}", COLUMNS)
    silent = [agent.name for agent in report.agents if not agent.routes]
    acted = [_agent(agent) for agent in report.agents if agent.routes]
    lines += _lines("agents", [*acted, *([f"without calls of their own: {', '.join(silent)}"] if silent else [])])
    routes = [route for agent in report.agents for route in agent.routes]
    exact, tokens = sum(route.exact for route in routes), sum(route.tokens for route in routes)
    own = "the policy's own" if len(report.policies) == 1 else "the policies' own"
    lines += _lines("tokens", [f"{exact} of {tokens} are {own}"] if report.policies and tokens else [])
    lines += _lines("tools", [_tool(tool) for tool in report.tools] or ["none offered"])
    lines += _lines("answers", [f"{report.answers}, {report.cut_off} of them cut off" if report.answers else "none"])
    lines += _lines("reward", [_reward(rollout)])
    lines += _lines("time", [_time(report.seconds)])
    for label, findings in (("warning", report.warnings), ("error", report.errors)):
        for finding in findings:
            lines += _lines(label, [finding])
    return "\n".join(lines)


def _lines(label: str, items: Iterable[str]) -> list[str]:
    first = f"  {label}".ljust(LABEL)
    lines: list[str] = []
    for item in items:
        indent = " " * LABEL
        lines += textwrap.wrap(
            item, COLUMNS, initial_indent=indent if lines else first, subsequent_indent=f"{indent}  "
        )
    return [line.replace(UNBROKEN, " ") for line in lines]


def _agent(agent: AgentReport) -> str:
    trained = "trained" if agent.trained else "not trained"
    return f"{agent.name} ({trained}): {', '.join(map(_route, agent.routes))}"


def _route(route: Route) -> str:
    calls = "1 call" if route.calls == 1 else f"{route.calls} calls"
    model = f" ({route.model})" if route.model is not None and route.model != route.to else ""
    failed = f", {route.failed} failed" if route.failed else ""
    return f"{calls} to {route.to}{model}{failed}, {route.tokens} tokens"


def _tool(tool: ToolReport) -> str:
    offered = f"offered to {', '.join(tool.offered_to)}" if tool.offered_to else "offered to nobody"
    malformed = f", {tool.malformed} not well-formed" if tool.malformed else ""
    return f"{tool.name}: {offered}, called {tool.calls} times{malformed}"


def _reward(rollout: Rollout) -> str:
    if not rollout.rewards:
        return "none"
    parts = []
    for part in rollout.rewards:
        value = "no value" if part.value is None else f"{part.value:g}"
        weight = "" if part.weight == 1 else f" × {part.weight:g}"
        reason = f" ({part.reason})" if part.reason else ""
        parts.append(f"{part.name} {value}{weight}{' of a step' if part.step else ''}{reason}")
    total = rollout.outcome
    return ", ".join(parts) if len(parts) == 1 or total is None else f"{total:g}: {', '.join(parts)}"


def _time(seconds: dict[str, float]) -> str:
    times = {name: format_duration(value).replace(" ", UNBROKEN) for name, value in seconds.items()}
    return (
        f"{times['start']} loading and serving, {times['agent']} agent ({times['model']} of it model calls), "
        f"{times['reward']} reward"
    )
