"""CrewAI crews, flows and agents for agentlightning."""
