"""The policy: the weights under training, their tokenizer and their version, one copy for trainer and engine."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentlightning.errors import PolicyError
from agentlightning_policy.attention import custom_attention
from agentlightning_policy.compute import compute
from agentlightning_policy.config import LoraConfig, ModelConfig
from agentlightning_policy.layers import use_fast_layers
from agentlightning_policy.pretrained import FrozenBase, convert, frozen_base, read_pretrained, without_bars
from agentlightning_policy.templates import named_templates, read_template

__all__ = ["LoraConfig", "ModelConfig", "PolicyModel", "convert"]


class PolicyModel:
    """A causal language model under training.

    ``version`` counts the changes of the weights. Who changes them does so inside `updating`; who computes
    with them from another thread (the engine) does so inside `reading`. ``frozen_base`` holds the weights under the
    adapters, where there are any: other policies may have theirs on the same.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        config: ModelConfig,
        *,
        frozen_base: FrozenBase | None = None,
    ) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.config = config
        self.version = 0
        self._frozen_base = frozen_base  # which is there for others as long as somebody holds it
        self._turn = threading.Condition()
        self._readers = 0
        self._updates = 0
        self._is_updating = False
        self._reference: nn.Module | None = None

    @classmethod
    def load(cls, config: ModelConfig, *, seed: int = 0) -> PolicyModel:
        """Loads weights and tokenizer; adapters begin as ``seed`` has them drawn. With LoRA the weights under the
        adapters are those of every other policy in this process that trains adapters on the same model.

        Raises `PolicyError` where there is no such model, or no chat template.
        """
        return compute(cls._load, config, seed)

    @classmethod
    def _load(cls, config: ModelConfig, seed: int) -> PolicyModel:
        base, dtype, device = None, getattr(torch, config.dtype), _device(config.device)
        if config.lora is None:
            model, tokenizer = read_pretrained(config.path, dtype)
            module: nn.Module = model.to(device)  # type: ignore[arg-type]
        else:
            base = frozen_base(config.path, dtype, device)
            model, tokenizer = base.view()
            module = _with_lora(model, config.lora, seed)
        if config.chat_template is not None:
            tokenizer.chat_template = read_template(config.chat_template, tokenizer)
        if not tokenizer.chat_template:
            raise PolicyError(
                f"the tokenizer of {config.path} has no chat template: give one as model.chat_template "
                f"(a Jinja file, or one of these by name: {', '.join(named_templates())})"
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        use_fast_layers(module.eval())
        return cls(module, tokenizer, config, frozen_base=base)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return self.base.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base.device

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, under the adapters where there are any."""
        return self.module if self.config.lora is None else self.module.get_base_model()  # type: ignore

    def parameters(self) -> list[nn.Parameter]:
        """The weights that are trained."""
        return [parameter for parameter in self.module.parameters() if parameter.requires_grad]

    def state(self) -> dict[str, torch.Tensor]:
        """The trained weights by name, for a checkpoint; views of the live ones, no copies."""
        return {name: weight.detach() for name, weight in self.module.named_parameters() if weight.requires_grad}

    def load_state(self, state: Mapping[str, torch.Tensor], *, version: int | None = None) -> None:
        """Takes the weights of `state` back, in place, as ``version`` (the next one by default).

        Raises `PolicyError` where names or shapes are not this model's.
        """
        own = self.state()
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())[:3]
            raise PolicyError(f"the checkpoint is of another model or another LoRA config: {', '.join(odd)} …")
        for name, weight in own.items():
            if weight.shape != state[name].shape:
                raise PolicyError(f"the checkpoint's {name} is {tuple(state[name].shape)}, not {tuple(weight.shape)}")
        with self.updating():
            for name, weight in own.items():
                weight.copy_(state[name])
        if version is not None:
            self.version = version

    def save(self, folder: str | Path) -> Path:
        """Writes a plain Hugging Face folder, adapters merged in, that transformers and vLLM load."""
        folder = Path(folder)
        with self.reading():
            model = self.base
            if self.config.lora is not None:
                model = copy.deepcopy(self.module).merge_and_unload()  # type: ignore[operator]
            with without_bars():
                model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Exclusive access to change the weights: waits until those who read are done, holds off others, and
        leaves a new version behind."""
        with self._turn:
            self._updates += 1
            self._turn.wait_for(lambda: not self._readers and not self._is_updating)
            self._is_updating = True
        try:
            yield
        finally:
            with self._turn:
                self.version += 1
                self._updates -= 1
                self._is_updating = False
                self._turn.notify_all()

    @contextmanager
    def reading(self) -> Iterator[int]:
        """Holds the weights as they are, and says their version. Gives way to an update that waits."""
        with self._turn:
            self._turn.wait_for(lambda: not self._updates)
            self._readers += 1
        try:
            yield self.version
        finally:
            with self._turn:
                self._readers -= 1
                self._turn.notify_all()

    def keep_layer_inputs(self) -> None:
        """From now on training keeps the input of each layer alone, and computes the rest again in the backward pass.
        Raises `PolicyError` where the architecture cannot."""
        base = self.base

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            """Of a layer's pass, and of the same again: by the attention of the first time."""
            return nullcontext(), custom_attention(base, base.config._attn_implementation)

        enable = getattr(base, "activation_checkpointing_enable", None)  # its name since transformers 5.23
        try:
            (enable or base.gradient_checkpointing_enable)({"use_reentrant": False, "context_fn": contexts})
        except ValueError as error:
            raise PolicyError(f"algorithm.gradient_checkpointing: {error}; leave it out") from error

    @contextmanager
    def frozen_reference(self) -> Iterator[nn.Module]:
        """The policy as it was loaded, for a KL term: the adapters off, or a frozen copy of the weights.

        The copy is made at the first use, from memory where nothing was trained yet, else from the model's files.
        """
        if self.config.lora is not None:
            with self.module.disable_adapter():  # type: ignore[operator]
                yield self.module
            return
        if self._reference is None:
            source = copy.deepcopy(self.module) if self.version == 0 else PolicyModel.load(self.config).module
            self._reference = source.requires_grad_(False).eval()
        yield self._reference


def _with_lora(model: PreTrainedModel, lora: LoraConfig, seed: int) -> nn.Module:
    import peft

    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):  # adapters are drawn on the CPU, wherever the model is
            torch.manual_seed(seed)
            return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise PolicyError(f"model.lora does not fit {type(model).__name__}: {error}") from error


def _device(name: str | None) -> torch.device:
    if name is not None:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise PolicyError(f"model.device: {name} is not usable here: {str(error).splitlines()[0]}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
