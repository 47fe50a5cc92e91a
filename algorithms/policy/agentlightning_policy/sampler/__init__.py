"""The embedded sampler: tokens from the very weights under training.

embedded    the sampler: what it serves, and each answer as it grows
info        what is served, by whatever sampler
scheduler   continuous batching
sampling    drawing tokens
attention   one forward pass over many rows
cache       keys and values that are kept
"""

from agentlightning_policy.sampler.embedded import EmbeddedSampler

__all__ = ["EmbeddedSampler"]
