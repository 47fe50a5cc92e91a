"""Texts as numbers: a small embedding that is made here, and functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentlightning.errors import ConfigError
from agentlightning_selection.features import Features, resolved

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "old", "is", "the", "moon", "sun"]
counted: list[str] = []


def vowels(text: str) -> list[float]:
    counted.append(text)
    return [float(text.count(vowel)) for vowel in "aeiou"]


def no_numbers(text: str) -> str:
    return "three"


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, saved as a folder."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("embedding")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_an_embedding_is_the_mean_over_a_texts_tokens_at_length_one(embedding: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["how old is the moon", "sun", "the sun is old"]
    found = Features(str(embedding))(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(embedding), AutoModel.from_pretrained(embedding).eval()
    for text, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_a_long_text_is_cut_to_what_the_embedding_takes(embedding: Path) -> None:
    features = Features(str(embedding))
    assert features(["moon " * 5000])[0] == pytest.approx(features(["moon " * 6000])[0])


def test_a_text_is_computed_once_and_rows_come_in_order() -> None:
    features = Features(f"{__name__}:vowels")
    counted.clear()
    first = features(["banana", "kiwi", "banana"])
    assert first.tolist() == [[3, 0, 0, 0, 0], [0, 0, 2, 0, 0], [3, 0, 0, 0, 0]]
    assert features(["kiwi"]).tolist() == first[1:2].tolist()
    assert sorted(counted) == ["banana", "kiwi"]


def test_a_function_that_gives_no_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"algorithm.features: .*no_numbers"):
        Features(f"{__name__}:no_numbers")(["a"])


def test_a_folder_is_found_from_wherever_the_router_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "minilm").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolved("minilm") == str(tmp_path / "minilm")
    assert resolved("sentence-transformers/all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"


def test_features_are_single_precision() -> None:
    assert Features(f"{__name__}:vowels")(["a"]).dtype == np.float32
