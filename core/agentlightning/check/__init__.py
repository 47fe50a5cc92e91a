"""The first rollout of a run: it counts for nothing, and says what there is to know before anything is spent."""

from agentlightning.check.report import AgentReport, CheckReport, Route, ToolReport
from agentlightning.check.text import render
from agentlightning.check.verdict import inspect_rollout

__all__ = ["AgentReport", "CheckReport", "Route", "ToolReport", "inspect_rollout", "render"]
