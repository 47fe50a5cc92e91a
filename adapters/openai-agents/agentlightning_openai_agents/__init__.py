"""OpenAI Agents SDK agents for agentlightning."""
