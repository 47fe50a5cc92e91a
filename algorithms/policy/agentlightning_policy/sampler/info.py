"""What any sampler of a policy serves."""

from __future__ import annotations

from typing import Any

from agentlightning.errors import PolicyError
from agentlightning.sampler import LogprobsMode, ModelInfo
from agentlightning_policy.config import ServingConfig
from agentlightning_policy.model import PolicyModel


def model_info(policy: PolicyModel, config: ServingConfig, *, logprobs: LogprobsMode) -> ModelInfo:
    """The policy as it is served by the name that the config gives. Raises `PolicyError` where the model names no
    longest context, and the config neither."""
    embeddings: Any = policy.base.get_input_embeddings()
    return ModelInfo(
        name=config.name,
        context_length=_context_length(policy, config),
        vocabulary=int(embeddings.weight.shape[0]),
        logprobs=logprobs,
        tokenizer=policy.config.path,
        end_ids=_end_ids(policy),
    )


def _context_length(policy: PolicyModel, config: ServingConfig) -> int:
    own = getattr(policy.base.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (own, config.max_context) if limit is not None]
    if not limits:
        raise PolicyError("the model names no longest context: set engine.max_context")
    return min(limits)


def _end_ids(policy: PolicyModel) -> frozenset[int]:
    named = getattr(policy.base.generation_config, "eos_token_id", None)
    return frozenset([named] if isinstance(named, int) else named or ())
