"""Texts → numbers: by a sentence embedding, or by a function of the user's own."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning.errors import ConfigError
from agentlightning.loading import load_function

REMEMBERED = 4096
"""Texts whose features are kept: the calls of a conversation begin with the same one."""
BATCH = 32
LONGEST = 256
"""Tokens of a text that an embedding sees; what MiniLM was made for."""

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Features:
    """What ``name`` says of a text: the function of ``module:function``, else the sentence embedding of that name or in
    that folder. Loaded when first asked; safe to ask from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._remembered: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()
        self._compute: Callable[[Sequence[str]], np.ndarray] | None = None

    @property
    def is_embedding(self) -> bool:
        """Whether its vectors have the length 1 as they are."""
        return _FUNCTION.fullmatch(self.name) is None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32. Raises `ConfigError` where they cannot be computed."""
        with self._lock:
            known = {text: self._remembered[text] for text in texts if text in self._remembered}
            new = sorted({text for text in texts if text not in known}, key=lambda text: (len(text), text))
            if new:
                self._compute = self._compute or self._load()
                computed = self._compute(new)
                known.update(zip(new, computed, strict=True))
            for text in dict.fromkeys(texts):
                self._remembered[text] = known[text]
                self._remembered.move_to_end(text)
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def _load(self) -> Callable[[Sequence[str]], np.ndarray]:
        return _embedding(self.name) if self.is_embedding else _own(self.name)


def features_of(name: str) -> Features:
    """The features of that name, loaded once in this process."""
    with _lock:
        return _known.setdefault(name, Features(name))


def resolved(name: str) -> str:
    """The name, with a folder's whole path: a router that is loaded elsewhere finds it again."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _own(name: str) -> Callable[[Sequence[str]], np.ndarray]:
    function = load_function(name, "a text")

    def compute(texts: Sequence[str]) -> np.ndarray:
        rows = [function(text) for text in texts]
        try:
            values = np.array(rows, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"algorithm.features: {name} has to give as many numbers for every text: {error}"
            ) from error
        if values.ndim != 2 or not np.isfinite(values).all():
            raise ConfigError(
                f"algorithm.features: {name} gave an array of shape {values.shape[1:]} for a text, or a number that is "
                "not finite; expected a sequence of finite numbers"
            )
        return values

    return compute


def _embedding(name: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Mean of a transformer's last states over the tokens of a text, at length 1: how sentence-transformers pools
    MiniLM (Reimers & Gurevych 2019, "Sentence-BERT", section 3)."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            f"algorithm.features: an embedding needs {error.name}: pip install './algorithms/selection[embedding]', or "
            "name a function of your own, module:function"
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)  # type: ignore[no-untyped-call, unused-ignore]
        model: Any = AutoModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"algorithm.features: the embedding {name} cannot be loaded: {error}; name a folder that holds one, a "
            "model of the hub, or a function of your own, module:function"
        ) from error

    def compute(texts: Sequence[str]) -> np.ndarray:
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                batch = tokenizer(
                    list(texts[start : start + BATCH]),
                    padding=True,
                    truncation=True,
                    max_length=LONGEST,
                    return_tensors="pt",
                )
                mask = batch["attention_mask"][..., None]
                states = model(**batch).last_hidden_state
                mean = (states * mask).sum(1) / mask.sum(1)
                parts.append(torch.nn.functional.normalize(mean, dim=1).float().numpy())
        return np.concatenate(parts)

    return compute


_known: dict[str, Features] = {}
_lock = threading.Lock()
