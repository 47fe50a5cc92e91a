"""The embedded engine: the OpenAI API on loopback, served from the very weights under training.

engine        start, stop, address, statistics
server        HTTP
api_chat      /v1/chat/completions: requests, responses and streams
api_responses /v1/responses
api_text      /v1/completions
protocol      what the APIs share: messages, errors, what may be asked of sampling
fields        what becomes of every field that a request may carry
requests      bytes → a request, checked
completions   one request, from its prompt to the tokens of its answers
chat          the tokenizer and its chat template
tool_calls    what the model wrote → a message
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
