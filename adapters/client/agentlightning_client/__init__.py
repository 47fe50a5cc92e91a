"""Lightning Clients for agentlightning: the agent runs in workers, apart from the process that trains."""
