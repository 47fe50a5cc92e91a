"""The embedded engine: the OpenAI API on loopback, served from the very weights under training.

engine        start, stop, address, statistics
server        HTTP
protocol      the shapes of the API and its errors
completions   one request, from messages to a response or a stream
chat          chat templates and tool calls
sessions      token in, token out
stream        text that grows
scheduler     continuous batching
sampling      drawing tokens
attention     one forward pass over many rows
cache         keys and values that are kept
"""

from agentlightning_policy.config import EngineConfig
from agentlightning_policy.engine.engine import Engine

__all__ = ["Engine", "EngineConfig"]
