"""The agent without the worked examples in its prompt."""

import agent

del agent.INSTRUCTIONS[1:]
graph = agent.graph
