"""LangGraph and LangChain agents for agentlightning."""
