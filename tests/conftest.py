"""What tests of several distributions share: a tiny causal language model, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before torch is imported: tiny models compute in operations so small that waiting for one another is all they do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Each client of a model reads all certificates that there are, 0.05 s of work, and tests speak to this machine alone.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("certificate.pem"))
# readline tells the processes that it starts, pytest's workers among them, how wide its terminal is.
os.environ.pop("COLUMNS", None)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

CHATML = """\
{%- if tools %}<|im_start|>system
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{% endif %}
You may call one or more functions:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'system' and loop.first %}
{%- elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- if message.content or not loop.first %}
{% endif %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SENTENCES = [
    "You are a helpful assistant. Use the calculator tool, then answer with a number.",
    "Tom has 23 apples and buys 48 more. How many apples does he have now?",
    '<tool_call>{"name": "calculator", "arguments": {"expression": "23 + 48"}}</tool_call>',
    "The answer is 71. The weather in Paris is sunny, in London it rains; she sells sea shells.",
    "system user assistant tool function arguments expression plus minus times divided by 0123456789",
]


def make_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 512 tokens at most, with a ChatML template that knows tools. It needs no torch."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHATML
    return fast


def make_tiny_model(folder: Path, family: str = "llama", *, seed: int = 0) -> Path:
    """Writes a randomly initialised model (4 layers, 64 wide, grouped-query attention) with the tokenizer of
    `make_tokenizer`. ``family`` is ``llama``, ``qwen2`` or ``mistral`` (which has a sliding window of 32)."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

    fast = make_tokenizer()
    sizes = {
        "vocab_size": len(fast),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "tie_word_embeddings": family == "llama",
        "bos_token_id": None,
        "eos_token_id": fast.eos_token_id,
        "pad_token_id": fast.pad_token_id,
    }
    if family == "mistral":
        sizes["sliding_window"] = 32
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config, "mistral": MistralConfig}[family](**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama."""
    return make_tiny_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by family: ``tiny_model_of("qwen2")``."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make_tiny_model(tmp_path_factory.mktemp(family), family)
        return made[family]

    return of
