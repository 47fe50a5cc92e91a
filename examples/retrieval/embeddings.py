"""Sentence embeddings by MiniLM: mean of the last states over a text's tokens, at length 1."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

BATCH = 64
LONGEST = 256


class MiniLM:
    """``name`` is a folder, or a name on the hub: ``sentence-transformers/all-MiniLM-L6-v2``."""

    def __init__(self, name: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        self._model = AutoModel.from_pretrained(name).eval()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Texts to unit vectors (N, D)."""
        return np.concatenate([self._embed(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        mean = (self._model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy()
