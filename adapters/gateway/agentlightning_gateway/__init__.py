"""The gateway: the OpenAI API over whatever `agentlightning.sampler.Sampler` writes the tokens. It needs no torch.

gateway       start, stop, address, statistics
server        HTTP
api_chat      /v1/chat/completions: requests, responses and streams
api_responses /v1/responses
api_text      /v1/completions
openapi       the description of all of it
protocol      what the APIs share: messages, errors, what a request may ask of generation
fields        what becomes of every field that a request may carry
requests      bytes → a request, checked
completions   a request → its prompts' generations, as the sampler writes them
chat          the tokenizer and its chat template
tool_calls    what the model wrote → a message
tool_formats  how families of models write tool calls
sessions      token in, token out
stream        text that grows
endpoint      the completions API of another server, over kept connections
openai_sampler  a sampler behind one such endpoint
"""

from agentlightning_gateway.config import GatewayConfig
from agentlightning_gateway.gateway import Gateway

__all__ = ["Gateway", "GatewayConfig"]
