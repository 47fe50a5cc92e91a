"""What a config file says of the policy, of its optimizer and of the engine that serves it. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agentlightning.config import BelowOne, Fraction, NonNegativeInt, Positive, PositiveInt
from agentlightning_gateway.config import GatewayConfig


class LoraConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2021) in place of full training: W + (alpha / rank) · B A.

    ``targets`` are module names, or ``all-linear`` for every linear layer but the output's.
    """

    rank: PositiveInt = 16
    alpha: Positive = 32.0
    dropout: BelowOne = 0.0
    targets: list[str] | Literal["all-linear"] = "all-linear"


class ModelConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which causal language model is trained.

    ``path`` is a Hugging Face folder, a hub name, a GGUF file or a folder that holds one. ``chat_template``
    is a Jinja file, the template itself, or the name of one that comes with this distribution (``hermes-tools``),
    for a tokenizer that has none or one that knows no tools.
    ``device`` None takes a CUDA or Apple GPU where there is one, else the CPU.
    """

    path: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraConfig | None = None
    chat_template: str | None = None
    device: str | None = None


class ServingConfig(GatewayConfig, kw_only=True, forbid_unknown_fields=True):
    """How a policy is served, the gateway's options among them, as the model ``name``: by default, by its own name.

    ``max_context`` (tokens of prompt and answer together) is the model's own when None.
    """

    name: str = ""
    max_context: PositiveInt | None = None


class EngineConfig(ServingConfig, kw_only=True, forbid_unknown_fields=True):
    """How the embedded engine serves a policy.

    ``max_batch`` requests run at once, others wait. ``cache_memory`` (bytes) bounds the keys and values kept between
    calls. ``pack_weights`` keeps a copy of the weights in the layout in which a CPU reads them fastest; it takes as
    much memory as they do.
    """

    max_batch: PositiveInt = 64
    cache_memory: NonNegativeInt = 2**30
    pack_weights: bool = True


LearningRate = Annotated[float, msgspec.Meta(gt=0, le=1)]


class OptimizerConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """AdamW (Loshchilov and Hutter 2019), with TRL's defaults.

    ``warmup`` is in optimizer steps, linear; after it the rate is constant, or falls to 0 at the end of the run: in a
    line, or as half a cosine (Loshchilov and Hutter 2017), which begins and ends gently.
    ``max_grad_norm`` bounds the gradient's L2 norm over all weights.
    """

    lr: LearningRate = 1e-6
    warmup: NonNegativeInt = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    weight_decay: Fraction = 0.0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    max_grad_norm: Positive = 1.0


class TrainerConfig(OptimizerConfig, kw_only=True, forbid_unknown_fields=True):
    """What every backend that trains in this process can be told; the optimizer's fields stand beside these.

    A micro-batch holds at most ``max_tokens_per_micro_batch`` distinct tokens (shared prefixes count once): the bound
    on memory. ``gradient_checkpointing`` lowers it further (Chen et al. 2016): each layer's input alone is kept for the
    backward pass, and the rest computed again: one more forward pass.
    """

    model: ModelConfig
    max_tokens_per_micro_batch: PositiveInt = 2048
    gradient_checkpointing: bool = False


class TorchConfig(TrainerConfig, kw_only=True, forbid_unknown_fields=True):
    """What the backend ``torch`` can be told: ``engine`` is what serves the policy, from the very weights."""

    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
