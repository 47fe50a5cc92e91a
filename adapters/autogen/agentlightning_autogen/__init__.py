"""AutoGen AgentChat agents and teams for agentlightning."""
