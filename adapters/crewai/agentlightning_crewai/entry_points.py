"""How crews, flows and lone agents are run: what is recorded of a deployed one."""

from __future__ import annotations

from agentlightning.adapterkit.entry_points import EntryPoint, argument
from agentlightning_crewai.adapter import to_plain

_inputs, _messages = argument(0, "inputs"), argument(0, "messages")
METHODS = ("kickoff", "kickoff_async", "akickoff")

ENTRY_POINTS = (
    EntryPoint("crewai.crew", "Crew", METHODS, _inputs, to_plain),
    EntryPoint("crewai.flow.flow", "Flow", METHODS, _inputs, to_plain),
    EntryPoint("crewai.agent", "Agent", METHODS, _messages, to_plain),
)
