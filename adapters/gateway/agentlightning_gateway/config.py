"""What a config file says of the gateway."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentlightning.config import Port, PositiveInt, Seed

KEY_VARIABLE = "AGL_POLICY_KEY"
"""The environment variable that holds the key of a gateway which other machines reach, here and there."""


class GatewayConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a model is served over the OpenAI API.

    ``host`` other than loopback needs a key, in the variable `KEY_VARIABLE`. ``port`` 0 takes any free one.
    ``max_tokens`` holds for requests that name none, ``seed`` for those that bring none.
    ``tool_format`` is how the model writes tool calls; ``auto`` tells it from the chat template.
    """

    host: str = "127.0.0.1"
    port: Port = 0
    max_tokens: PositiveInt = 512
    seed: Seed = 0
    tool_format: Literal["auto", "hermes", "qwen3-coder", "mistral", "llama3", "pythonic", "deepseek"] = "auto"
